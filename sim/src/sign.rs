//! Presigned requests, made ahead of a measurement or in place of a client: Signature Version 4 in the query (AWS, "Authenticating
//! Requests: Using Query Parameters").

use aws_lc_rs::{digest, hmac};

/// Who signs, for how long, and for which service.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Region.
    pub region: String,
    /// Host and port, as the request names it.
    pub host: String,
    /// The moment of signing, as `20130524T000000Z`.
    pub at: String,
}

/// How long a URL is good for, in seconds.
const EXPIRES: &str = "86400";

impl Signer {
    /// Path and query of a presigned request. `path` holds nothing that would need escaping.
    pub fn presigned(&self, method: &str, path: &str) -> String {
        let day = self.at.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={}&X-Amz-Expires={EXPIRES}&X-Amz-SignedHeaders=host",
            self.access_key,
            scope.replace('/', "%2F"),
            self.at,
        );
        let request = format!(
            "{method}\n{path}\n{query}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD",
            self.host
        );
        let hash = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", self.at);
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for step in [day, &self.region, "s3", "aws4_request", &text] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), step.as_bytes())
                .as_ref()
                .to_vec();
        }
        format!("{path}?{query}&X-Amz-Signature={}", hex(&key))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            region: "us-east-1".to_owned(),
            host: "examplebucket.s3.amazonaws.com".to_owned(),
            at: "20130524T000000Z".to_owned(),
        };

        let url = signer.presigned("GET", "/test.txt");

        assert!(
            url.ends_with(
                "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
            ),
            "{url}"
        );
    }
}
