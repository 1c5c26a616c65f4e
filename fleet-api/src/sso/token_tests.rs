use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: i64 = 1_800_000_000;
const EXPECTED: Expected<'static> = Expected {
    issuer: "https://id.example",
    client_id: "longhaul",
    nonce: "n-1",
    now: NOW,
};

/// Whoever signs.
enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair, usize),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(Box::new(
            RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        ))
    }

    fn p256() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::Ec(key.expect("a key"), 32)
    }

    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA", "kid": id, "use": "sig", "n": text(n.big_endian_without_leading_zero()),
                    "e": text(e.big_endian_without_leading_zero()),
                })
            }
            Self::Ec(key, size) => {
                let point = key.public_key().as_ref();
                let (x, y) = point[1..].split_at(*size);
                let curve = if *size == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "kid": id, "crv": curve, "x": text(x), "y": text(y) })
            }
            Self::Ed(key) => {
                json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": text(key.public_key().as_ref()) })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", text(header), text(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut out = vec![0; key.public_modulus_len()];
                let how: &dyn RsaEncoding = if header["alg"] == "PS256" {
                    &RSA_PSS_SHA256
                } else {
                    &RSA_PKCS1_SHA256
                };
                key.sign(how, &random, message.as_bytes(), &mut out)
                    .expect("signs");
                out
            }
            Self::Ec(key, _) => key
                .sign(&random, message.as_bytes())
                .expect("signs")
                .as_ref()
                .to_vec(),
            Self::Ed(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn keys(all: &[Value]) -> Keys {
    Keys::parse(json!({ "keys": all }).to_string().as_bytes()).expect("a set")
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example", "aud": "longhaul", "sub": "u-1", "nonce": "n-1",
        "iat": NOW, "exp": NOW + 300, "groups": ["ops"], "realm_access": { "roles": ["a"] },
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn tokens_of_every_kind_of_key_are_read() {
    let ed = Ed25519KeyPair::generate().expect("a key");
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key");
    for (signer, alg) in [
        (Signer::rsa(), "RS256"),
        (Signer::rsa(), "PS256"),
        (Signer::p256(), "ES256"),
        (Signer::Ec(p384, 48), "ES384"),
        (Signer::Ed(ed), "EdDSA"),
    ] {
        let known = keys(&[signer.jwk("k")]);
        let token = signer.sign(&json!({ "alg": alg, "kid": "k" }), &claims());
        let read = verify(&token, &known, EXPECTED).expect(alg);
        assert_eq!(read.subject(), "u-1");
        assert_eq!(read.at("groups"), Some(&json!(["ops"])));
        assert_eq!(read.at("realm_access.roles"), Some(&json!(["a"])));
        assert_eq!(read.at("realm_access.none"), None);
    }
}

#[test]
fn a_token_for_anything_else_is_refused() {
    let signer = Signer::p256();
    let known = keys(&[signer.jwk("k")]);
    let header = json!({ "alg": "ES256", "kid": "k" });
    let read = |claims: &Value| verify(&signer.sign(&header, claims), &known, EXPECTED);
    for bad in [
        with("iss", json!("https://id.example/")),
        with("iss", json!(null)),
        with("aud", json!("another")),
        with("aud", json!(["another"])),
        with("aud", json!(["longhaul", "another"])),
        with("aud", json!(["longhaul", 7])),
        with("aud", json!([])),
        with("azp", json!("another")),
        with("azp", json!(7)),
        with("nonce", json!("n-2")),
        with("nonce", json!(null)),
        with("sub", json!("")),
        with("sub", json!("x".repeat(256))),
        with("sub", json!(null)),
        with("exp", json!(NOW - SKEW_SECS)),
        with("exp", json!("soon")),
        with("exp", json!(null)),
        with("iat", json!(NOW + SKEW_SECS + 1)),
        with("iat", json!(null)),
        with("nbf", json!(NOW + SKEW_SECS + 1)),
        with("nbf", json!("now")),
    ] {
        let refused = read(&bad).expect_err("refused");
        assert!(matches!(refused, TokenError::Claim(_)), "{bad}: {refused}");
    }
    let mut several = with("aud", json!(["another", "longhaul"]));
    several["azp"] = json!("longhaul");
    for good in [
        several,
        with("aud", json!(["longhaul"])),
        with("exp", json!(NOW - SKEW_SECS + 1)),
        with("exp", json!(1_800_000_000.5)),
        with("iat", json!(NOW + SKEW_SECS)),
        with("nbf", json!(NOW)),
    ] {
        assert!(read(&good).is_ok(), "{good}");
    }
}

#[test]
fn a_key_decides_what_its_signatures_can_be() {
    let (ours, rsa) = (Signer::p256(), Signer::rsa());
    let known = keys(&[ours.jwk("k"), rsa.jwk("r")]);
    let read = |token: &str| verify(token, &known, EXPECTED).map(|_| ());
    let header = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });

    for (alg, kid) in [
        ("none", "k"),
        ("None", "k"),
        ("HS256", "k"),
        ("HS256", "r"),
        ("RS256", "k"),
        ("ES256", "r"),
        ("ES384", "k"),
    ] {
        let token = ours.sign(&header(alg, kid), &claims());
        assert_eq!(read(&token), Err(TokenError::Algorithm), "{alg} {kid}");
    }
    let unsigned = ours.sign(&header("ES256", "k"), &claims());
    let unsigned = &unsigned[..=unsigned.rfind('.').expect("a dot")];
    assert_eq!(read(unsigned), Err(TokenError::Signature));
    // RFC 8725, section 2.1: a public key is no secret.
    let public = known.0[1].clone();
    let Material::Rsa { n, .. } = public.material else {
        panic!("an RSA key")
    };
    let text = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", text(header("HS256", "r")), text(claims()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &n);
    let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(read(&forged), Err(TokenError::Algorithm));

    let other = Signer::p256();
    let token = |kid: &str| other.sign(&header("ES256", kid), &claims());
    assert_eq!(read(&token("k")), Err(TokenError::Signature));
    assert_eq!(read(&token("new")), Err(TokenError::UnknownKey));
    let critical = json!({ "alg": "ES256", "kid": "k", "crit": ["exp"], "exp": 1 });
    assert_eq!(
        read(&ours.sign(&critical, &claims())),
        Err(TokenError::Algorithm)
    );
    let unnamed = ours.sign(&json!({ "alg": "ES256" }), &claims());
    assert_eq!(read(&unnamed), Ok(()));
}

#[test]
fn keys_that_are_for_something_else_are_none() {
    let signer = Signer::p256();
    let token = signer.sign(&json!({ "alg": "ES256", "kid": "k" }), &claims());
    let read = |change: &dyn Fn(&mut Value)| {
        let mut jwk = signer.jwk("k");
        change(&mut jwk);
        verify(&token, &keys(&[jwk]), EXPECTED).map(|_| ())
    };
    assert_eq!(read(&|_| {}), Ok(()));
    assert_eq!(
        read(&|jwk| jwk["use"] = json!("enc")),
        Err(TokenError::UnknownKey)
    );
    assert_eq!(
        read(&|jwk| jwk["alg"] = json!("ES384")),
        Err(TokenError::Algorithm)
    );
    assert_eq!(
        read(&|jwk| jwk["x"] = json!("AAAA")),
        Err(TokenError::UnknownKey)
    );
    assert_eq!(
        read(&|jwk| jwk["crv"] = json!("P-521")),
        Err(TokenError::UnknownKey)
    );
    assert!(Keys::parse(b"{}").is_err());
    assert!(Keys::parse(b"{\"keys\":[7,{\"kty\":\"oct\",\"k\":\"AA\"}]}").is_ok());
}

#[test]
fn no_altered_character_gets_through() {
    let signer = Signer::p256();
    let known = keys(&[signer.jwk("k")]);
    let token = signer.sign(&json!({ "alg": "ES256", "kid": "k" }), &claims());
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).expect("ASCII");
        assert!(
            verify(&altered, &known, EXPECTED).is_err(),
            "character {at}"
        );
    }
    assert!(verify(&format!("{token}.x"), &known, EXPECTED).is_err());
    assert!(verify(&"a".repeat(MAX_BYTES + 1), &known, EXPECTED).is_err());
}

proptest! {
    #[test]
    fn no_text_is_too_odd(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        prop_assert!(verify(&text, &Keys::default(), EXPECTED).is_err());
        let dotted = format!("{}.{text}.{text}", URL_SAFE_NO_PAD.encode(&bytes));
        prop_assert!(verify(&dotted, &Keys::default(), EXPECTED).is_err());
        let _ = Keys::parse(&bytes);
    }
}
