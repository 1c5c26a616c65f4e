//! `longhaul s3-env`: settings for other S3 clients.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use longhaul_sdk::{BoxClient, state_dir};
use serde::Serialize;

use crate::args::{Cli, S3Env};
use crate::exit::{Exit, Failure, connect};

/// What another client must know.
#[derive(Serialize)]
struct Settings {
    endpoint: String,
    /// `ADDRESS NAME`, where the endpoint's name must first be made to resolve.
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts_line: Option<String>,
    bucket: String,
    region: String,
    access_key: String,
    secret_key: String,
    ca_bundle: PathBuf,
}

pub async fn run(cli: &Cli, args: &S3Env) -> Result<Exit, Failure> {
    let client = connect(&args.place).await?;
    let settings = settings(&client).await?;
    if cli.json {
        let document = serde_json::to_string(&settings).map_err(|e| Failure::failed(&e))?;
        println!("{document}");
    } else if args.rclone {
        print!("{}", rclone(&settings));
    } else {
        print!("{}", shell(&settings));
    }
    Ok(Exit::Ok)
}

async fn settings(client: &BoxClient) -> Result<Settings, Failure> {
    let ticket = client.ticket();
    let addr = client.endpoint().addr;
    // Other clients check the name that they connect to, and cannot be told another one.
    let (endpoint, hosts_line) = if client.proves_address().await {
        (format!("https://{addr}"), None)
    } else {
        let name = longhaul_sdk::protocol::ticket::lan_name(&ticket.box_id);
        (
            client.url().to_owned(),
            Some(format!("{} {name}", addr.ip())),
        )
    };
    Ok(Settings {
        endpoint,
        hosts_line,
        bucket: ticket.bucket.clone(),
        region: ticket.region.clone(),
        access_key: ticket.access_key.clone(),
        secret_key: ticket.secret_key.0.clone(),
        ca_bundle: write_roots(client).map_err(|e| Failure::failed(&e))?,
    })
}

fn write_roots(client: &BoxClient) -> std::io::Result<PathBuf> {
    let dir = state_dir().ok_or_else(|| {
        std::io::Error::other("no place for the CA bundle: set HOME or XDG_STATE_HOME")
    })?;
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}-ca.pem", client.ticket().box_id));
    replace(&path, client.ticket().root_pem.as_bytes())?;
    Ok(path)
}

/// A client that reads the file meanwhile sees the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    File::create(&new)?.write_all(bytes)?;
    std::fs::rename(new, path)
}

fn shell(s: &Settings) -> String {
    let mut lines = hosts_comment(s);
    lines.push(format!(
        "# Then for example: aws s3 cp FILE s3://{}/",
        s.bucket
    ));
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", s.access_key.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &s.secret_key),
        ("AWS_REGION", &s.region),
        ("AWS_DEFAULT_REGION", &s.region),
        ("AWS_ENDPOINT_URL_S3", &s.endpoint),
        ("S3_ENDPOINT_URL", &s.endpoint),
        ("AWS_CA_BUNDLE", &s.ca_bundle.to_string_lossy()),
        ("LONGHAUL_BUCKET", &s.bucket),
    ] {
        lines.push(format!("export {name}={}", quoted(value)));
    }
    lines.join("\n") + "\n"
}

fn rclone(s: &Settings) -> String {
    let mut lines = hosts_comment(s);
    lines.push(format!(
        "# Append to ~/.config/rclone/rclone.conf, then: rclone --ca-cert {} copy DIR longhaul:{}",
        s.ca_bundle.display(),
        s.bucket
    ));
    lines.extend(["[longhaul]", "type = s3", "provider = Other"].map(str::to_owned));
    for (name, value) in [
        ("access_key_id", &s.access_key),
        ("secret_access_key", &s.secret_key),
        ("region", &s.region),
        ("endpoint", &s.endpoint),
    ] {
        // A line break would begin another setting.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        lines.push(format!("{name} = {value}"));
    }
    lines.extend(["force_path_style = true", "no_check_bucket = true"].map(str::to_owned));
    lines.join("\n") + "\n"
}

/// How to make the box's name resolve, where that is needed.
fn hosts_comment(s: &Settings) -> Vec<String> {
    let comment =
        |line| format!("# First make the box's name known: echo '{line}' | sudo tee -a /etc/hosts");
    s.hosts_line.iter().map(comment).collect()
}

/// For a POSIX shell: nothing inside single quotes is special but their end.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(quoted("a'; rm -rf /; '"), r"'a'\''; rm -rf /; '\'''");
    }
}
