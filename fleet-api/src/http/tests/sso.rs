//! Logging in by a provider's word: a real provider, another program, says who people are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use longhaul_protocol::ticket::Secret;
use reqwest::redirect::Policy;
use rustls::RootCertStore;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::site::{Answer, Auth, Site};
use crate::alerts::trust;
use crate::auth::first_admin;
use crate::clock::Clock;
use crate::sso::{Sso, SsoConfig};
use crate::store::Db;
use crate::store::audit::audit_verify;
use crate::store::operators::Role;
use crate::store::testing::on_both;

/// Where the cloud of these tests is, for browsers.
const CLOUD: &str = "https://cloud.example:8443";

/// Where `scripts/tools.sh test` has put the provider.
fn modules() -> PathBuf {
    let tools = std::env::var_os("LONGHAUL_TOOLS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    let tools = tools.unwrap_or_else(|| cache.unwrap_or_else(home).join("longhaul/tools"));
    let modules = tools.join("provider");
    assert!(
        modules.join("node_modules/oidc-provider").is_dir(),
        "the provider of these tests is not in {}: run scripts/tools.sh test",
        modules.display()
    );
    modules
}

/// The provider; it ends with this.
struct Provider {
    _child: Child,
    /// It ends where nobody would read what it says.
    _lines: Lines<BufReader<ChildStdout>>,
    issuer: String,
    http: reqwest::Client,
}

impl Provider {
    async fn start() -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provider/provider.mjs");
        let mut child = Command::new("node")
            .arg(program)
            .arg(modules())
            .arg(format!("{CLOUD}/v1/session/oidc/callback"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let issuer = lines.next_line().await.expect("reads").expect("an issuer");
        let tls = trust::of(RootCertStore::empty()).expect("TLS");
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .redirect(Policy::none())
            .no_proxy()
            .build();
        Self {
            _child: child,
            _lines: lines,
            issuer,
            http: http.expect("a client"),
        }
    }

    async fn tell(&self, path: &str) {
        let told = self.http.post(format!("{}{path}", self.issuer)).send();
        assert_eq!(told.await.expect("an answer").status(), 200, "{path}");
    }

    fn config(&self) -> SsoConfig {
        let rules = ["fleet-admins=admin", "ops=operator", "acme=customer:acme"];
        SsoConfig {
            issuer: self.issuer.clone(),
            client_id: "longhaul".to_owned(),
            client_secret: Some(Secret("a secret / with + signs".to_owned())),
            name: "Company".to_owned(),
            scopes: vec!["profile".to_owned()],
            claim: "groups".to_owned(),
            rules: rules.map(|rule| rule.parse().expect("a rule")).to_vec(),
        }
    }

    /// Logs in there as `who`, and yields where the browser is sent in the end.
    async fn visit(&self, url: &str, who: &str) -> String {
        let mut url = format!("{url}&login_hint={who}");
        let mut cookies: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..10 {
            let all: Vec<_> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let answer = self.http.get(&url).header("cookie", all.join("; ")).send();
            let answer = answer.await.expect("an answer");
            for cookie in answer.headers().get_all("set-cookie") {
                let pair = cookie.to_str().expect("text").split(';').next();
                let (name, value) = pair.and_then(|p| p.split_once('=')).expect("a cookie");
                if value.is_empty() {
                    cookies.remove(name);
                } else {
                    cookies.insert(name.to_owned(), value.to_owned());
                }
            }
            let Some(to) = answer.headers().get("location") else {
                panic!("{url}: {} {:?}", answer.status(), answer.text().await);
            };
            let to = to.to_str().expect("text");
            if let Some(path) = to.strip_prefix(CLOUD) {
                return path.to_owned();
            }
            url = match to.strip_prefix('/') {
                Some(_) => format!("{}{to}", self.issuer),
                None => to.to_owned(),
            };
        }
        panic!("the provider leads in circles");
    }
}

/// A browser that has begun to log in.
struct Begun {
    cookie: Auth,
    url: String,
}

async fn site(db: &Db, config: SsoConfig) -> Site {
    let tls = trust::of(RootCertStore::empty()).expect("TLS");
    let sso = Sso::new(config, &tls).expect("a client");
    Site::with(db, Clock::System.now(), |people| {
        people.sso = Some(Arc::new(sso));
    })
    .await
}

/// The provider has the machine's time.
fn catch_up(site: &Site) {
    let behind = Clock::System.now().0 - site.people.clock.now().0;
    site.people.clock.advance(behind.max(0));
}

async fn begin(site: &Site) -> Begun {
    catch_up(site);
    let begun = site
        .send("GET", "/v1/session/oidc", &Auth::None, None)
        .await;
    assert_eq!(begun.status, 303, "{begun:?}");
    let cookie = begun.header("set-cookie");
    for part in [
        "__Host-longhaul-log-in=",
        "Secure",
        "HttpOnly",
        "SameSite=Lax",
        "Path=/",
        "Max-Age=600",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    Begun {
        cookie: Auth::BareCookie(cookie.split(';').next().expect("a cookie").to_owned()),
        url: begun.header("location").to_owned(),
    }
}

async fn log_in(site: &Site, provider: &Provider, who: &str) -> Answer {
    let begun = begin(site).await;
    let back = provider.visit(&begun.url, who).await;
    catch_up(site);
    site.send("GET", &back, &begun.cookie, None).await
}

/// The session of a log-in that went well.
fn session(answer: &Answer) -> Auth {
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, "/"),
        "{answer:?}"
    );
    let mut cookies = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|c| c.to_str().expect("text"));
    let session = cookies
        .find(|c| c.starts_with("__Host-longhaul-session="))
        .expect("a session");
    assert!(
        session.contains("HttpOnly") && session.contains("SameSite=Strict"),
        "{session}"
    );
    Auth::Cookie(session.split(';').next().expect("a cookie").to_owned())
}

/// Nobody was logged in, and the log-in page says why.
fn refused(answer: &Answer, why: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, format!("/?log-in={why}").as_str()),
        "{answer:?}"
    );
    for cookie in answer.headers.get_all("set-cookie") {
        assert!(
            !cookie
                .to_str()
                .expect("text")
                .starts_with("__Host-longhaul-session="),
            "{answer:?}"
        );
    }
}

async fn me(site: &Site, auth: &Auth) -> serde_json::Value {
    site.send("GET", "/v1/me", auth, None).await.json()
}

on_both! {
    async fn whom_the_provider_vouches_for_may_do_what_their_group_may(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        let ways = site.send("GET", "/v1/session/ways", &Auth::None, None).await;
        assert_eq!(ways.json(), json!({ "provider": { "name": "Company", "url": "/v1/session/oidc" } }));

        let ada = session(&log_in(&site, &provider, "u-ada").await);
        assert_eq!(me(&site, &ada).await, json!({ "name": "ada", "role": "admin" }));
        refused(&log_in(&site, &provider, "u-eve").await, "unknown");
        refused(&log_in(&site, &provider, "u-nobody").await, "denied");
        refused(&log_in(&site, &provider, "u-carl").await, "unknown");
        let acme = json!({ "id": "acme", "name": "Acme" });
        assert_eq!(site.send("POST", "/v1/tenants", &ada, Some(acme)).await.status, 201);
        let carl = session(&log_in(&site, &provider, "u-carl").await);
        assert_eq!(me(&site, &carl).await, json!({ "name": "carl", "role": "customer", "tenant": "acme" }));
        assert_eq!(site.send("GET", "/v1/audit", &carl, None).await.status, 403);

        let audit = site.send("GET", "/v1/audit?filter=action:session.create", &ada, None).await.json();
        assert_eq!(audit["items"][1]["actor"], "ada");
        assert_eq!(audit["items"][1]["detail"]["issuer"], provider.issuer);
        assert_eq!(audit["items"][1]["detail"]["subject"], "u-ada");
        let refusals = site.send("GET", "/v1/audit?filter=action:session.refuse", &ada, None).await.json();
        assert_eq!(refusals["items"].as_array().map(Vec::len), Some(2));
        let mut tx = db.read().await.expect("begins");
        assert_eq!(audit_verify(&mut tx).await.expect("follows"), None);
    }

    async fn an_account_of_the_providers_has_no_password_and_takes_nobodys_name(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        let (name, password) = first_admin(&db, site.people.clock.now().0).await.expect("makes").expect("is the first");
        refused(&log_in(&site, &provider, "u-twin").await, "name");
        let admin = Auth::of(&site.log_in(&name, &password).await);
        let ada = session(&log_in(&site, &provider, "u-ada").await);
        for guess in ["", "ada", "correct horse battery"] {
            assert_eq!(site.log_in("ada", guess).await.status, 401, "{guess:?}");
        }
        let given = json!({ "password": "correct horse battery" });
        assert_eq!(site.send("PATCH", "/v1/operators/ada", &admin, Some(given)).await.status, 409);
        let own = json!({ "old": "", "new": "correct horse battery" });
        assert_eq!(site.send("POST", "/v1/me/password", &ada, Some(own)).await.status, 403);
        // Somebody who can log in without the provider stays.
        assert_eq!(site.send("DELETE", "/v1/operators/admin", &ada, None).await.status, 409);
        assert_eq!(site.send("DELETE", "/v1/operators/ada", &admin, None).await.status, 204);
        assert_eq!(site.send("GET", "/v1/me", &ada, None).await.status, 401);
    }

    async fn groups_that_change_at_the_provider_change_what_somebody_may_do(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        let first = session(&log_in(&site, &provider, "u-ada").await);
        provider.tell("/groups?who=u-ada&groups=ops&name=ada.lovelace").await;
        let second = session(&log_in(&site, &provider, "u-ada").await);
        assert_eq!(me(&site, &second).await, json!({ "name": "ada", "role": "operator" }), "the same account");
        assert_eq!(me(&site, &first).await["role"], "operator");
        provider.tell("/groups?who=u-ada&groups=strangers&name=ada").await;
        refused(&log_in(&site, &provider, "u-ada").await, "unknown");
        for ended in [&first, &second] {
            assert_eq!(site.send("GET", "/v1/me", ended, None).await.status, 401);
        }
    }

    async fn an_answer_is_good_once_in_one_browser_and_in_time(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        let begun = begin(&site).await;
        let back = provider.visit(&begun.url, "u-ada").await;
        let other = begin(&site).await;
        for (auth, path) in [
            (&Auth::None, back.clone()),
            (&other.cookie, back.clone()),
            (&Auth::BareCookie("__Host-longhaul-log-in=AAAA".into()), back.clone()),
            (&begun.cookie, back.replace("state=", "state=x")),
            (&begun.cookie, "/v1/session/oidc/callback".to_owned()),
        ] {
            refused(&site.send("GET", &path, auth, None).await, "stray");
        }
        session(&site.send("GET", &back, &begun.cookie, None).await);
        refused(&site.send("GET", &back, &begun.cookie, None).await, "stray");

        let late = begin(&site).await;
        let back = provider.visit(&late.url, "u-ada").await;
        site.people.clock.advance(600_000);
        refused(&site.send("GET", &back, &late.cookie, None).await, "stray");
    }

    async fn what_is_put_into_an_answer_is_refused(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        let part = |path: &str, name: &str| {
            let url = url::Url::parse(&format!("{CLOUD}{path}")).expect("a URL");
            url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned()).expect("a part")
        };
        // Another's code in an answer to ours: it was begun with another secret.
        let (ours, theirs) = (begin(&site).await, begin(&site).await);
        let own = provider.visit(&ours.url, "u-ada").await;
        let stolen = provider.visit(&theirs.url, "u-carl").await;
        let mixed = own.replace(&part(&own, "code"), &part(&stolen, "code"));
        refused(&site.send("GET", &mixed, &ours.cookie, None).await, "provider");
        refused(&site.send("GET", &own, &ours.cookie, None).await, "stray");
        // The provider names itself, and nobody else may.
        for (from, to) in [("iss=http", "iss=https"), ("&iss=", "&was=")] {
            let begun = begin(&site).await;
            let back = provider.visit(&begun.url, "u-ada").await;
            assert!(back.contains(from), "{back}");
            refused(&site.send("GET", &back.replace(from, to), &begun.cookie, None).await, "stray");
        }
        let begun = begin(&site).await;
        let back = provider.visit(&begun.url, "u-ada").await;
        let wrong = back.replace("code=", "code=x");
        refused(&site.send("GET", &wrong, &begun.cookie, None).await, "provider");
    }

    async fn a_provider_turns_its_keys_and_people_still_log_in(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        session(&log_in(&site, &provider, "u-ada").await);
        for _ in 0..2 {
            provider.tell("/turn-keys").await;
            // Newer keys are not asked for at once again.
            site.people.clock.advance(10_000);
            session(&log_in(&site, &provider, "u-ada").await);
        }
    }

    async fn whoever_tries_too_often_waits(db: Db) {
        let provider = Provider::start().await;
        let site = site(&db, provider.config()).await;
        for _ in 0..30 {
            let path = "/v1/session/oidc/callback?state=a&code=b";
            refused(&site.send("GET", path, &Auth::None, None).await, "stray");
        }
        refused(&log_in(&site, &provider, "u-ada").await, "busy");
        site.people.clock.advance(301_000);
        session(&log_in(&site, &provider, "u-ada").await);
    }

    async fn a_provider_that_is_not_there_or_another_lets_nobody_in(db: Db) {
        let provider = Provider::start().await;
        let gone = SsoConfig { issuer: "http://127.0.0.1:1".into(), ..provider.config() };
        // Answers, but for another name.
        let other = SsoConfig { issuer: format!("{}/", provider.issuer), ..provider.config() };
        for config in [gone, other] {
            let site = site(&db, config).await;
            refused(&site.send("GET", "/v1/session/oidc", &Auth::None, None).await, "provider");
        }
        let wrong = SsoConfig { client_secret: Some(Secret("guess".into())), ..provider.config() };
        let site = site(&db, wrong).await;
        refused(&log_in(&site, &provider, "u-ada").await, "provider");
        let none = Site::on(&db).await;
        assert_eq!(none.send("GET", "/v1/session/oidc", &Auth::None, None).await.status, 404);
        assert_eq!(none.send("GET", "/v1/session/oidc/callback", &Auth::None, None).await.status, 404);
        assert_eq!(none.send("GET", "/v1/session/ways", &Auth::None, None).await.json(), json!({}));
        let admin = none.token(Role::Admin).await;
        assert_eq!(none.send("GET", "/v1/operators", &admin, None).await.json()["items"], json!([]));
    }
}
