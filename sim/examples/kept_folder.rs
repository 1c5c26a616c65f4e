//! Makes a folder with its receipts, for trying who verifies them: `kept_folder DIR`.

#[path = "../tests/proofs/kept.rs"]
mod kept;

fn main() {
    let dir = std::env::args_os().nth(1).expect("a folder");
    kept::make(dir.as_ref());
}
