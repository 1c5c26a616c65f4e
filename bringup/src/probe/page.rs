//! The report as a page: whole in itself, for people.

use std::fmt::Write as _;

use longhaul_protocol::probe::{Nat, ProbeReport};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem;color:#16232a;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:1.6rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #dbe2e4;vertical-align:top}\
.good{border-left:6px solid #15753c;padding:.6rem 1rem;background:#eef7f0}.bad{border-left:6px solid #b3261e;padding:.6rem 1rem;background:#fbeeed}\
small{color:#57676f}";

/// The page of an order's report.
pub fn page(order: &str, report: &ProbeReport) -> String {
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Network report {order}</title><style>{STYLE}</style></head><body><h1>Network report for order {order}</h1>",
        order = safe(order)
    );
    verdict(&mut html, report);
    table(&mut html, "This network", &facts(report));
    let ways = report.egress.iter().map(|way| {
        let to = format!("{} port {}", way.host, way.port);
        let state = match (way.open, way.code) {
            (true, _) => "open".to_owned(),
            (false, Some(code)) => format!("shut: {code} {}", code.entry().title),
            (false, None) => "shut".to_owned(),
        };
        (to, format!("{state} ({})", way.what))
    });
    table(
        &mut html,
        "Ways out that a box needs",
        &ways.collect::<Vec<_>>(),
    );
    let rungs = report.ladder.iter().map(|line| {
        let state = line
            .code
            .map_or_else(|| "holds".to_owned(), |code| code.to_string());
        (line.rung.to_string(), format!("{state}: {}", line.evidence))
    });
    table(&mut html, "Step by step", &rungs.collect::<Vec<_>>());
    html.push_str("</body></html>\n");
    html
}

fn verdict(html: &mut String, report: &ProbeReport) {
    if report.findings.is_empty() {
        html.push_str("<p class=\"good\"><strong>A box would come online here.</strong></p>");
        return;
    }
    html.push_str("<h2>What to do</h2>");
    for finding in &report.findings {
        let entry = finding.code.entry();
        // Writing to a string cannot fail.
        let _ = write!(
            html,
            "<p class=\"bad\"><strong>{} {}</strong><br>{}<br><small>{}</small></p>",
            finding.code,
            safe(entry.title),
            safe(entry.customer),
            safe(&finding.evidence)
        );
    }
}

/// What was found, in words.
pub fn facts(report: &ProbeReport) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut add = |name: &str, text: String| facts.push((name.to_owned(), text));
    for interface in &report.interfaces {
        let mtu = interface
            .mtu
            .map_or_else(String::new, |mtu| format!(", MTU {mtu}"));
        let addresses = interface.addresses.join(", ");
        add(
            &format!("Interface {}", interface.name),
            format!("{addresses}{mtu}"),
        );
    }
    add(
        "Gateway",
        report
            .gateway
            .map_or_else(|| "none".to_owned(), |g| g.to_string()),
    );
    for server in &report.dns {
        let took = server.took_ms.map_or_else(
            || "does not answer".to_owned(),
            |ms| format!("answers in {ms} ms"),
        );
        let answers: Vec<_> = server.answers.iter().map(ToString::to_string).collect();
        let invents = if server.invents == Some(true) {
            "; makes answers up"
        } else {
            ""
        };
        add(
            &format!("DNS server {}", server.address),
            format!("{took}: {}{invents}", answers.join(", ")),
        );
    }
    add(
        "Proxy",
        report
            .proxy
            .clone()
            .unwrap_or_else(|| "none used".to_owned()),
    );
    add("Address translation", nat(report.nat).to_owned());
    add(
        "Largest packet",
        report.path_mtu.map_or_else(
            || "unknown: the cloud's echo does not answer".to_owned(),
            |mtu| format!("{mtu} bytes"),
        ),
    );
    add(
        "Multicast",
        match report.multicast {
            Some(_) => "works: another machine answered".to_owned(),
            None => "unknown: no other machine answered".to_owned(),
        },
    );
    add(
        "Clock",
        report.clock_ahead_ms.map_or_else(
            || "not compared".to_owned(),
            |ms| format!("{:.1} s ahead of ours", seconds(ms)),
        ),
    );
    match &report.line {
        None => add("Line", "not measured".to_owned()),
        Some(line) => {
            add("Delay", format!("{} ms", line.latency_ms));
            add("From the cloud", speed(line.down_bits_per_sec));
            add("To the cloud", speed(line.up_bits_per_sec));
        }
    }
    add(
        "IPv6",
        match (report.ipv6.address, report.ipv6.cloud) {
            (false, _) => "no address".to_owned(),
            (true, Some(true)) => "an address, and the cloud can be reached".to_owned(),
            (true, Some(false)) => "an address, but the cloud cannot be reached".to_owned(),
            (true, None) => "an address; the cloud has none".to_owned(),
        },
    );
    facts
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn speed(bits: Option<u64>) -> String {
    bits.map_or_else(
        || "not measured".to_owned(),
        |bits| format!("{:.1} Mbit/s", bits as f64 / 1e6),
    )
}

fn nat(nat: Nat) -> &'static str {
    match nat {
        Nat::None => "none",
        Nat::Cone => {
            "yes; one port inside is one port outside (seen with one address of the cloud)"
        }
        Nat::Symmetric => "yes; another port outside for each port that is asked",
        Nat::Translated => "yes; of which kind was not seen",
        Nat::Unknown => "unknown: the cloud's echo does not answer",
    }
}

fn table(html: &mut String, title: &str, rows: &[(String, String)]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(html, "<h2>{}</h2><table>", safe(title));
    for (name, text) in rows {
        let _ = write!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
            safe(name),
            safe(text)
        );
    }
    html.push_str("</table>");
}

/// Text as HTML shows it: what a network says of itself must not become part of the page.
fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::diag::Code;
    use longhaul_protocol::probe::{Finding, Ipv6};
    use longhaul_protocol::value::UnixMillis;

    fn report(findings: Vec<Finding>) -> ProbeReport {
        ProbeReport {
            v: 1,
            ticket: "pt-1".parse().unwrap(),
            probe_version: "1".into(),
            at: UnixMillis(0),
            findings,
            ladder: Vec::new(),
            interfaces: Vec::new(),
            gateway: None,
            dns: Vec::new(),
            nat: Nat::Unknown,
            path_mtu: None,
            proxy: None,
            egress: Vec::new(),
            multicast: None,
            clock_ahead_ms: None,
            line: None,
            ipv6: Ipv6::default(),
        }
    }

    #[test]
    fn what_a_network_says_does_not_become_part_of_the_page() {
        let finding = Finding {
            code: Code::CAPTIVE_PORTAL,
            evidence: "led to \"<script>alert(1)</script>\u{7}".to_owned(),
        };

        let html = page("order-1", &report(vec![finding]));

        assert!(
            html.contains("LH-503") && html.contains("&lt;script&gt;"),
            "{html}"
        );
        assert!(
            !html.contains("<script>") && !html.contains("http://") && !html.contains("https://"),
            "{html}"
        );
        assert!(page("order-1", &report(Vec::new())).contains("would come online"));
    }
}
