//! Where this user's programs keep state.

use std::path::PathBuf;

/// `$XDG_STATE_HOME/longhaul`, or `~/.local/state/longhaul`; `None` where neither is known.
///
/// Source: XDG Base Directory Specification 0.8; a relative path in the variable is ignored.
pub fn state_dir() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("longhaul"))
}
