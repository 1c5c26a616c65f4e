//! Settings in the words of each client.

use crate::env::Settings;

/// For aws-cli and everything else that reads the AWS variables.
pub fn aws(s: &Settings) -> String {
    shell(s, &format!("aws s3 cp FILE s3://{}/", s.bucket))
}

/// For s5cmd, which reads the AWS variables and one of its own.
pub fn s5cmd(s: &Settings) -> String {
    shell(s, &format!("s5cmd cp 'DIR/*' s3://{}/", s.bucket))
}

fn shell(s: &Settings, example: &str) -> String {
    let mut lines = hosts_comment(s);
    lines.push(format!("# Then for example: {example}"));
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

/// For rclone.
pub fn rclone(s: &Settings) -> String {
    let mut lines = hosts_comment(s);
    lines.push(format!(
        "# Append to ~/.config/rclone/rclone.conf, then: rclone --ca-cert {} copy DIR longhaul:{}",
        s.ca_bundle.display(),
        s.bucket
    ));
    lines.extend(["[longhaul]", "type = s3", "provider = Other"].map(str::to_owned));
    lines.extend(settings(&[
        ("access_key_id", &s.access_key),
        ("secret_access_key", &s.secret_key),
        ("region", &s.region),
        ("endpoint", &s.endpoint),
    ]));
    lines.extend(["force_path_style = true", "no_check_bucket = true"].map(str::to_owned));
    lines.join("\n") + "\n"
}

/// For s3cmd.
pub fn s3cmd(s: &Settings) -> String {
    let host = s.endpoint.trim_start_matches("https://");
    let mut lines = hosts_comment(s);
    lines.push(format!(
        "# Write this into FILE, then for example: s3cmd -c FILE put DIR --recursive s3://{}/",
        s.bucket
    ));
    lines.push("[default]".to_owned());
    lines.extend(settings(&[
        ("access_key", &s.access_key),
        ("secret_key", &s.secret_key),
        ("bucket_location", &s.region),
        ("host_base", host),
        // Without a place for the bucket's name, s3cmd puts it into the path.
        ("host_bucket", host),
        ("use_https", "True"),
        ("check_ssl_certificate", "True"),
        ("ca_certs_file", &s.ca_bundle.to_string_lossy()),
        ("signature_v2", "False"),
    ]));
    lines.join("\n") + "\n"
}

/// For boto3.
pub fn boto3(s: &Settings) -> String {
    let mut lines = hosts_comment(s);
    lines.push(format!(
        "# Then for example: s3.upload_file(\"FILE\", {}, \"FILE\")",
        python(&s.bucket)
    ));
    lines.extend(
        [
            "import boto3",
            "from botocore.config import Config",
            "",
            "s3 = boto3.client(",
            "    \"s3\",",
        ]
        .map(str::to_owned),
    );
    for (name, value) in [
        ("endpoint_url", s.endpoint.as_str()),
        ("region_name", &s.region),
        ("aws_access_key_id", &s.access_key),
        ("aws_secret_access_key", &s.secret_key),
        ("verify", &s.ca_bundle.to_string_lossy()),
    ] {
        lines.push(format!("    {name}={},", python(value)));
    }
    lines.push("    config=Config(s3={\"addressing_style\": \"path\"}),".to_owned());
    lines.push(")".to_owned());
    lines.join("\n") + "\n"
}

/// Lines of an INI file.
fn settings(pairs: &[(&str, &str)]) -> Vec<String> {
    let line = |(name, value): &(&str, &str)| {
        // A line break would begin another setting.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        format!("{name} = {value}")
    };
    pairs.iter().map(line).collect()
}

/// A string of Python: JSON's strings are.
fn python(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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
        assert_eq!(python("a\"\nb"), r#""a\"\nb""#);
        assert_eq!(settings(&[("a", "b\n[c]")]), ["a = b[c]"]);
        assert_eq!(quoted("a'; rm -rf /; '"), r"'a'\''; rm -rf /; '\'''");
    }
}
