//! The recovery key: made here, kept here, used here.

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use longhaul_protocol::recovery::WrappedKey;
use longhaul_provisioning::files;
use longhaul_provisioning::recovery::{RecoveryKey, RecoveryPublic, write_vault_key};

#[derive(Args)]
pub struct Recovery {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the fleet's recovery key. Keep the private part where nobody of the cloud reaches it: it
    /// opens the disk of every box that is told the public part.
    Create {
        /// The private part; must not exist.
        #[arg(long)]
        private: PathBuf,
        /// The public part: for `make --recovery`.
        #[arg(long)]
        public: PathBuf,
    },
    /// Say which key this is.
    Show {
        /// The public part.
        #[arg(long)]
        public: PathBuf,
    },
    /// Decrypt the key of one box's vault, for `longhaul-box rescue`.
    Unwrap {
        /// The private part.
        #[arg(long)]
        private: PathBuf,
        /// What the box wrote: `recovery.json` in the vault's folder, or what the cloud keeps.
        #[arg(long)]
        wrapped: PathBuf,
        /// Where the vault's key goes, in the clear.
        #[arg(long)]
        out: PathBuf,
    },
}

pub fn run(recovery: Recovery) -> Result<(), Box<dyn Error>> {
    match recovery.command {
        Command::Create { private, public } => {
            if private.exists() {
                return Err(format!("{} exists already", private.display()).into());
            }
            let key = RecoveryKey::create()?;
            key.write(&private, &public)?;
            println!("recovery key {}", key.public().id());
            println!("keep {} offline", private.display());
        }
        Command::Show { public } => {
            println!("recovery key {}", RecoveryPublic::read(&public)?.id());
        }
        Command::Unwrap {
            private,
            wrapped,
            out,
        } => {
            let key = RecoveryKey::read(&private)?;
            let text = files::read(&wrapped)?.ok_or("there is no such wrapped key")?;
            let wrapped: WrappedKey = serde_json::from_slice(&text)?;
            write_vault_key(&out, &key.unwrap(&wrapped)?)?;
            println!("vault key of box {} in {}", wrapped.box_id, out.display());
            println!("it opens everything on that disk: remove it when you are done");
        }
    }
    Ok(())
}
