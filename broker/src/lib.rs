//! The MQTT edge: TLS 1.3, client-certificate identity, topic rules, revocation, sessions; a backbone behind it.
