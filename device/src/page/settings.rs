//! The page on which network settings are changed.

use std::fmt::Write as _;

use longhaul_protocol::network_settings::{NetworkReport, NetworkSettings, NetworkState};

use super::desk::Desk;
use super::form::{Form, Wrong};
use super::html::{Text, frame};
use crate::console::Status;

/// Why nothing was changed.
pub enum Trouble {
    /// Nothing is wrong.
    None,
    /// These fields are.
    Fields(Vec<Wrong>),
    /// The form is older than the agent.
    Stale,
    /// Too many codes were tried.
    Wait(u64),
}

/// What the form shows at first: what is in force.
pub fn first(status: &Status) -> Form {
    let last = status.lan.network.as_ref();
    let kept = last.filter(|last| matches!(last.state, NetworkState::Kept | NetworkState::Trial));
    let settings = kept.and_then(|last| last.settings.as_ref());
    Form::of(&settings.cloned().unwrap_or_default(), settings.is_none())
}

/// What became of the last change, in a sentence.
pub fn said(report: &NetworkReport) -> String {
    let settings = match &report.settings {
        Some(settings) => settings.to_string(),
        None => "as the box was prepared".to_owned(),
    };
    let left = report.left_secs.unwrap_or(0);
    match report.state {
        NetworkState::Trial => format!(
            "New settings are being tried: {settings}. If the box does not reach us with them, those before come back by themselves in {left} seconds."
        ),
        NetworkState::Kept => format!("In force: {settings}."),
        NetworkState::RolledBack => format!(
            "The last change ({settings}) was taken back, and the settings before it are in force again: {}.",
            report.reason
        ),
        NetworkState::Refused => format!("The last change was refused: {}.", report.reason),
    }
}

/// The form.
pub fn page(status: &Status, desk: &Desk, form: &Form, trouble: &Trouble) -> String {
    let mut main = String::from("<h1>Network settings</h1>");
    alert(&mut main, trouble);
    let minutes = desk.trial_secs.div_ceil(60);
    let _ = write!(
        main,
        "<p>Most networks need nothing here. Ask your network administrator before you change anything.</p>\
         <p>New settings are tried for {minutes} {}: if the box does not reach us with them, it goes back to those before by itself. Your files are safe meanwhile.</p>",
        if minutes == 1 { "minute" } else { "minutes" }
    );
    if let Some(report) = &status.lan.network {
        let _ = write!(main, "<p class=\"here\">{}</p>", Text(&said(report)));
    }
    if desk.is_open() {
        fields(&mut main, desk, form, trouble);
    } else {
        main.push_str("<p><strong>This box was prepared without a claim code: its settings can be changed by us only. Call us.</strong></p>");
    }
    main.push_str("<p><a href=\"/\">Back to the box</a></p>");
    frame(status, "Network settings", &main, false)
}

/// What stands there while the settings are being tried.
pub fn tried(status: &Status, desk: &Desk, wanted: Option<&NetworkSettings>) -> String {
    let secs = desk.trial_secs;
    let shown = wanted.map_or("as the box was prepared".to_owned(), ToString::to_string);
    let mut main = format!(
        "<h1>The box tries the new settings</h1><p class=\"next\">{}</p>\
         <p>It does so for {secs} seconds at the most. If it reaches us, they stay. If not, those before come back by themselves.</p>",
        Text(&shown)
    );
    let addresses = wanted.map(|wanted| wanted.addresses.as_slice());
    match addresses.unwrap_or_default() {
        [] => main.push_str("<p>The box may get another address: look at its screen, or run <code>longhaul find</code>.</p>"),
        fixed => {
            main.push_str("<p>While they are in force, the box is here:</p><ul>");
            for fixed in fixed {
                let host = if fixed.address.is_ipv6() {
                    format!("[{}]", fixed.address)
                } else {
                    fixed.address.to_string()
                };
                let _ = write!(main, "<li><a href=\"http://{host}/\">http://{host}/</a></li>");
            }
            main.push_str("</ul>");
        }
    }
    main.push_str("<p><a href=\"/\">Back to the box, where it was</a></p>");
    frame(status, "Trying network settings", &main, false)
}

fn alert(page: &mut String, trouble: &Trouble) {
    let text = match trouble {
        Trouble::None => return,
        Trouble::Fields(_) => "Nothing was changed yet. Please look at:".to_owned(),
        Trouble::Stale => {
            "Nothing was changed: this page was open for too long. Please send it again.".to_owned()
        }
        Trouble::Wait(secs) => format!(
            "Nothing was changed: too many codes were tried. Please wait {} minutes.",
            secs.div_ceil(60)
        ),
    };
    let _ = write!(
        page,
        "<div class=\"trouble\" role=\"alert\" tabindex=\"-1\" id=\"trouble\"><p>{}</p>",
        Text(&text)
    );
    if let Trouble::Fields(wrong) = trouble {
        page.push_str("<ul>");
        for Wrong { field, text } in wrong {
            let line = FIXED.iter().chain(&MORE).find(|line| line.field == *field);
            let label = match (line, *field) {
                (Some(line), _) => line.label,
                (None, "claim") => CLAIM.label,
                (None, _) => "Where the address comes from",
            };
            let text = format!("{label}: {text}");
            let _ = write!(page, "<li><a href=\"#{field}\">{}</a></li>", Text(&text));
        }
        page.push_str("</ul>");
    }
    page.push_str("</div>");
}

/// One line of text.
struct Line {
    field: &'static str,
    label: &'static str,
    hint: &'static str,
}

const FIXED: [Line; 5] = [
    Line {
        field: "address",
        label: "Address (IPv4)",
        hint: "Such as 192.168.1.40",
    },
    Line {
        field: "mask",
        label: "Network mask",
        hint: "Such as 255.255.255.0, or 24",
    },
    Line {
        field: "gateway",
        label: "Router (gateway)",
        hint: "Such as 192.168.1.1",
    },
    Line {
        field: "address6",
        label: "Address (IPv6), if you use it",
        hint: "With its prefix, such as 2001:db8::40/64",
    },
    Line {
        field: "gateway6",
        label: "Router (IPv6), if it does not announce itself",
        hint: "Such as fe80::1",
    },
];
const MORE: [Line; 3] = [
    Line {
        field: "dns",
        label: "DNS servers",
        hint: "Addresses with commas between them; empty: those that your network names",
    },
    Line {
        field: "vlan",
        label: "VLAN",
        hint: "A number; empty: none",
    },
    Line {
        field: "proxy",
        label: "HTTP proxy",
        hint: "Such as http://proxy.example:3128; none: no proxy; empty: what the box was prepared with",
    },
];

const CLAIM: Line = Line {
    field: "claim",
    label: "Claim code",
    hint: "It is printed on the box and in its papers: four groups of four",
};

fn fields(page: &mut String, desk: &Desk, form: &Form, trouble: &Trouble) {
    let wrong: &[Wrong] = match trouble {
        Trouble::Fields(wrong) => wrong,
        _ => &[],
    };
    let _ = write!(
        page,
        "<form method=\"post\" action=\"/network\" autocomplete=\"off\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <fieldset id=\"how\"><legend>Where the box gets its address from</legend>",
        desk.token()
    );
    for (value, label) in [
        ("prepared", "As the box was prepared"),
        ("dhcp", "From your network (DHCP)"),
        ("fixed", "The fixed address below"),
    ] {
        let checked = if form.get("how") == value {
            " checked"
        } else {
            ""
        };
        let _ = write!(
            page,
            "<p><input type=\"radio\" name=\"how\" id=\"how-{value}\" value=\"{value}\"{checked}> <label for=\"how-{value}\">{label}</label></p>"
        );
    }
    page.push_str("</fieldset><fieldset><legend>Fixed address</legend>");
    for line in &FIXED {
        text(page, line, form.get(line.field), wrong, "");
    }
    page.push_str("</fieldset><fieldset><legend>More</legend>");
    for line in &MORE {
        text(page, line, form.get(line.field), wrong, "");
    }
    page.push_str("</fieldset>");
    text(
        page,
        &CLAIM,
        "",
        wrong,
        " required autocapitalize=\"characters\"",
    );
    page.push_str("<p><button type=\"submit\">Try these settings</button></p></form>");
}

fn text(page: &mut String, line: &Line, value: &str, wrong: &[Wrong], more: &str) {
    let Line { field, label, hint } = line;
    let found = wrong.iter().find(|wrong| wrong.field == *field);
    let (invalid, by) = match found {
        Some(_) => (
            " aria-invalid=\"true\"",
            format!("{field}-hint {field}-wrong"),
        ),
        None => ("", format!("{field}-hint")),
    };
    let _ = write!(
        page,
        "<p class=\"field\"><label for=\"{field}\">{label}</label><span class=\"hint\" id=\"{field}-hint\">{hint}</span>"
    );
    if let Some(wrong) = found {
        let _ = write!(
            page,
            "<span class=\"wrong\" id=\"{field}-wrong\">{}</span>",
            Text(&wrong.text)
        );
    }
    let _ = write!(
        page,
        "<input type=\"text\" id=\"{field}\" name=\"{field}\" value=\"{}\" maxlength=\"1024\" spellcheck=\"false\" aria-describedby=\"{by}\"{invalid}{more}></p>",
        Text(value)
    );
}
