//! An operator at the cloud's HTTP API.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, Response};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::wait::{TimedOut, until};

/// What the API refused, or what kept it from answering.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The fleet's root could not be read.
    #[error("failed to read the fleet's root {path}: {text}")]
    Root {
        /// Where it was looked for.
        path: String,
        /// Why.
        text: String,
    },
    /// No answer.
    #[error("{what} got no answer")]
    Connection {
        /// Method and path.
        what: String,
        /// Why.
        source: reqwest::Error,
    },
    /// An answer that is no success.
    #[error("{what} answered {status}: {body}")]
    Refused {
        /// Method and path.
        what: String,
        /// Status code.
        status: u16,
        /// The problem document.
        body: String,
    },
    /// An answer without what it should have.
    #[error("{what} answered without {field}: {body}")]
    Incomplete {
        /// Method and path.
        what: String,
        /// What is missing.
        field: &'static str,
        /// What was there.
        body: String,
    },
    /// A condition that did not come true.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// A logged-in operator.
#[derive(Clone, Debug)]
pub struct Operator {
    client: reqwest::Client,
    url: String,
    cookie: String,
}

impl Operator {
    /// Logs in at `url`; the server must prove itself by the root in `root_pem`.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn log_in(
        url: &str,
        root_pem: &Path,
        name: &str,
        password: &str,
    ) -> Result<Self, ApiError> {
        let root = |text: String| ApiError::Root {
            path: root_pem.display().to_string(),
            text,
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(root_pem).map_err(|e| root(e.to_string()))?
        {
            let certificate = certificate.map_err(|e| root(e.to_string()))?;
            roots.add(certificate).map_err(|e| root(e.to_string()))?;
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| root(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_mins(5))
            .build()
            .map_err(|source| ApiError::Connection {
                what: "set-up".to_owned(),
                source,
            })?;
        let mut operator = Self {
            client,
            url: url.to_owned(),
            cookie: String::new(),
        };
        let login = json!({"name": name, "password": password});
        let answer = operator
            .send(Method::POST, "/v1/session", Some(&login))
            .await?;
        let cookie = answer
            .headers()
            .get(SET_COOKIE)
            .and_then(|c| c.to_str().ok());
        let cookie = cookie
            .and_then(|c| c.split(';').next())
            .ok_or(ApiError::Incomplete {
                what: "POST /v1/session".to_owned(),
                field: "a cookie",
                body: String::new(),
            })?;
        cookie.clone_into(&mut operator.cookie);
        Ok(operator)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, ApiError> {
        let what = format!("{method} {path}");
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .header(COOKIE, &self.cookie)
            .header("x-longhaul-csrf", "1");
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .map_err(|source| ApiError::Connection {
                what: what.clone(),
                source,
            })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap_or_default();
        Err(ApiError::Refused { what, status, body })
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.json(Method::GET, path, None).await
    }

    /// `POST path`, as JSON.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// `PUT path`, as JSON.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.json(Method::PUT, path, Some(body)).await
    }

    /// `POST path`, without a body and for its effect alone.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn order(&self, path: &str) -> Result<(), ApiError> {
        self.send(Method::POST, path, None).await.map(drop)
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let what = format!("{method} {path}");
        let answer = self.send(method, path, body).await?;
        answer
            .json()
            .await
            .map_err(|source| ApiError::Connection { what, source })
    }

    /// BLAKE3 of an object as it lies in the bucket, read through the API.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn object_digest(&self, bucket: &str, key: &str) -> Result<blake3::Hash, ApiError> {
        let path = format!("/v1/objects/{bucket}/{key}");
        let mut answer = self.send(Method::GET, &path, None).await?;
        let mut hasher = blake3::Hasher::new();
        let failed = |source| ApiError::Connection {
            what: format!("GET {path}"),
            source,
        };
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            hasher.update(&chunk);
        }
        Ok(hasher.finalize())
    }

    /// Every object below `prefix`, as the API lists it.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<Value>, ApiError> {
        let mut objects = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("/v1/objects?bucket={bucket}&prefix={prefix}&limit=1000");
            if let Some(cursor) = &cursor {
                path.push_str("&cursor=");
                path.extend(cursor.bytes().map(|b| format!("%{b:02X}")));
            }
            let page = self.get(&path).await?;
            objects.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(objects),
            }
        }
    }

    /// Sends a command and waits for its end; yields the command as it then is.
    ///
    /// # Errors
    ///
    /// [`ApiError`], also if it did not end in time.
    pub async fn command(&self, box_id: &str, body: &Value) -> Result<Value, ApiError> {
        let path = format!("/v1/boxes/{box_id}/commands");
        let sent = self.post(&path, body).await?;
        let id = text(&sent, "id", &path)?;
        let ended = until("the command's result", Duration::from_mins(1), || async {
            let command = self
                .get(&format!("/v1/commands/{id}"))
                .await
                .map_err(|e| e.to_string())?;
            match command["state"].as_str() {
                Some("queued" | "sent" | "accepted") | None => Err(command.to_string()),
                Some(_) => Ok(command),
            }
        });
        Ok(ended.await?)
    }

    /// Makes a ticket and writes its file.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn ticket(&self, box_id: &str, bucket: &str) -> Result<String, ApiError> {
        let path = format!("/v1/boxes/{box_id}/tickets");
        let made = self
            .post(&path, &json!({"bucket": bucket, "expires_in_secs": 86_400}))
            .await?;
        let id = text(&made, "id", &path)?;
        let path = format!("/v1/tickets/{id}/download");
        let answer = self.send(Method::GET, &path, None).await?;
        answer
            .text()
            .await
            .map_err(|source| ApiError::Connection { what: path, source })
    }

    /// Assigns a release to one box; yields the rollout's name.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn roll_out(&self, box_id: &str, version: &str) -> Result<String, ApiError> {
        let body = json!({"version": version, "boxes": [box_id]});
        let made = self.post("/v1/rollouts", &body).await?;
        text(&made, "id", "POST /v1/rollouts")
    }

    /// Waits until a rollout to one box has ended; yields how: `state` and `reason`.
    ///
    /// # Errors
    ///
    /// [`ApiError`], also if it did not end in time.
    pub async fn rolled_out(&self, rollout: &str) -> Result<Value, ApiError> {
        let path = format!("/v1/rollouts/{rollout}");
        let ended = until("the update's end", Duration::from_mins(3), || async {
            let rollout = self.get(&path).await.map_err(|e| e.to_string())?;
            let on_box = rollout["boxes"][0].clone();
            match on_box["state"].as_str() {
                Some("committed" | "rolled_back" | "failed" | "refused" | "expired") => Ok(on_box),
                _ => Err(on_box.to_string()),
            }
        });
        Ok(ended.await?)
    }

    /// The newest entries of a box's timeline of this kind, at most a thousand looked through.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn timeline(&self, box_id: &str, kind: &str) -> Result<Vec<Value>, ApiError> {
        let path = format!("/v1/boxes/{box_id}/timeline?limit=1000");
        let mut page = self.get(&path).await?;
        let items = page["items"].as_array_mut().map(std::mem::take);
        let mut items = items.unwrap_or_default();
        items.retain(|item| item["kind"] == kind);
        Ok(items)
    }

    /// The box as the cloud knows it.
    ///
    /// # Errors
    ///
    /// [`ApiError`].
    pub async fn box_detail(&self, box_id: &str) -> Result<Value, ApiError> {
        self.get(&format!("/v1/boxes/{box_id}")).await
    }
}

/// The text in `field` of an answer.
///
/// # Errors
///
/// [`ApiError::Incomplete`].
pub fn text(answer: &Value, field: &'static str, what: &str) -> Result<String, ApiError> {
    answer[field]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| ApiError::Incomplete {
            what: what.to_owned(),
            field,
            body: answer.to_string(),
        })
}
