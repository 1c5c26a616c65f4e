//! `longhaul man`: one page per command, from the same definitions as `--help`.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::exit::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pages, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

pub fn run(args: &Args) -> Result<Exit, Failure> {
    write(&args.dir).map_err(|source| {
        let failed = std::io::Error::new(
            source.kind(),
            format!(
                "failed to write the pages to {}: {source}",
                args.dir.display()
            ),
        );
        Failure::failed(&failed)
    })?;
    Ok(Exit::Ok)
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
