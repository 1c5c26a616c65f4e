//! The page's text.

use std::fmt::Write as _;

use longhaul_protocol::diag::{RungReport, RungStatus};
use longhaul_protocol::journey::{BoxKnows, Guide, Step};

use crate::console::Status;

/// The whole page.
pub fn page(status: &Status) -> String {
    frame(status, "", &main(status), true)
}

/// A page with everything around `main`; `live`: what changes of it is taken over.
pub(super) fn frame(status: &Status, title: &str, main: &str, live: bool) -> String {
    let id = Text(status.lan.box_id.as_str());
    let dash = if title.is_empty() { "" } else { " - " };
    let (script, now, foot) = if live {
        (
            "<script src=\"/page.js\" defer></script><noscript><meta http-equiv=\"refresh\" content=\"15\"></noscript>",
            " id=\"now\"",
            "<p><a href=\"/network\">Change network settings</a> (needs the claim code that is printed on the box)</p>\
             <p>It shows what the box's screen, <code>longhaul doctor</code> and our operators see.</p>",
        )
    } else {
        ("", "", "")
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}{dash}Longhaul box {id}</title><link rel=\"stylesheet\" href=\"/page.css\">\
         {script}</head>\
         <body><header><p class=\"brand\">Longhaul</p><p class=\"serial\">Box <strong>{id}</strong></p></header>\
         <main{now}>{main}</main><footer>{foot}</footer>\
         </body></html>\n"
    )
}

/// What changes.
pub fn main(status: &Status) -> String {
    let mut page = String::new();
    headline(&mut page, status);
    journey(&mut page, status);
    transfer(&mut page, status);
    ladder(&mut page, &status.lan.rungs);
    network(&mut page, status);
    offline(&mut page, status);
    page
}

/// Always there, so that what changes has its place.
fn offline(page: &mut String, status: &Status) {
    page.push_str("<section class=\"offline\">");
    let said = status.offline.said();
    if !said.is_empty() {
        let _ = write!(
            page,
            "<h2>Without a line</h2><p>{}</p><p><a href=\"/offline\">Register the box without a line</a></p>",
            Text(&said)
        );
    }
    page.push_str("</section>");
}

fn network(page: &mut String, status: &Status) {
    page.push_str("<section class=\"settings\"><h2>Network settings</h2><p>");
    let said = match &status.lan.network {
        Some(report) => super::settings::said(report),
        None => "As the box was prepared.".to_owned(),
    };
    let _ = write!(page, "{}</p></section>", Text(&said));
}

/// What a box knows of its journey.
fn knows(status: &Status) -> BoxKnows {
    let rungs = &status.lan.rungs;
    BoxKnows {
        cable: rungs
            .first()
            .is_none_or(|link| link.status != RungStatus::Failed),
        online: is_online(rungs),
        tickets: status.tickets,
        objects: status.lan.vault.objects,
        pending: status.lan.vault.pending_objects,
    }
}

/// The step of the journey that the customer is at, and what to do there.
pub fn step(status: &Status) -> (Step, String) {
    Guide::current(Step::of_box(knows(status)), status.guide.as_ref())
}

/// Whether every rung holds.
pub fn is_online(rungs: &[RungReport]) -> bool {
    !rungs.is_empty() && rungs.iter().all(|rung| rung.status == RungStatus::Ok)
}

fn headline(page: &mut String, status: &Status) {
    let rungs = &status.lan.rungs;
    let failing = rungs.iter().find(|rung| rung.code.is_some());
    page.push_str("<section class=\"state\" role=\"status\" aria-live=\"polite\">");
    match status.lan.code() {
        Some(code) => {
            let entry = code.entry();
            let (title, customer) = (Text(entry.title), Text(entry.customer));
            let _ = write!(
                page,
                "<h1 class=\"bad\"><span class=\"code\">{code}</span> {title}</h1><p class=\"next\">{customer}</p>"
            );
            if let Some(rung) = failing {
                let evidence = Text(&rung.evidence);
                let _ = write!(page, "<p class=\"evidence\">Seen: {evidence}</p>");
            }
        }
        None if is_online(rungs) => page.push_str(
            "<h1 class=\"good\">Online</h1><p class=\"next\">The box reaches us. All is well.</p>",
        ),
        None => page.push_str(
            "<h1>Starting</h1><p class=\"next\">The box is looking for its way to us. This takes up to a minute.</p>",
        ),
    }
    if status.lan.identifying {
        page.push_str("<p class=\"here\">This is the box you are looking for.</p>");
    }
    page.push_str("</section>");
}

fn journey(page: &mut String, status: &Status) {
    let (current, next) = step(status);
    page.push_str("<section><h2>Your journey</h2><ol class=\"journey\">");
    for step in Step::ALL {
        let (class, mark, here) = match step.cmp(&current) {
            std::cmp::Ordering::Less => ("done", "done", ""),
            std::cmp::Ordering::Equal => ("current", "now", " aria-current=\"step\""),
            std::cmp::Ordering::Greater => ("later", "later", ""),
        };
        let title = Text(step.title());
        let _ = write!(
            page,
            "<li class=\"{class}\"{here}><span class=\"what\">{title}</span> <span class=\"mark\">{mark}</span>"
        );
        if step == current {
            let failing = status.lan.rungs.iter().any(|r| r.code.is_some());
            let text = if failing && step <= Step::Online {
                "What to do stands at the top of this page."
            } else {
                &next
            };
            let _ = write!(page, "<p>{}</p>", Text(text));
        }
        page.push_str("</li>");
    }
    page.push_str("</ol></section>");
}

fn transfer(page: &mut String, status: &Status) {
    let vault = &status.lan.vault;
    let arrived = vault.objects.saturating_sub(vault.pending_objects);
    page.push_str("<section><h2>Your files</h2>");
    if vault.objects == 0 {
        page.push_str("<p>No files on the box yet.</p>");
    } else {
        let (objects, waiting) = (vault.objects, bytes(vault.pending_bytes));
        let _ = write!(
            page,
            "<p><label for=\"arrived\">{arrived} of {objects} files are in your bucket, {waiting} to go.</label></p>\
             <progress id=\"arrived\" max=\"{objects}\" value=\"{arrived}\"></progress>"
        );
    }
    let mut urls = urls(status).peekable();
    if urls.peek().is_some() {
        page.push_str("<p>Push to:</p><ul class=\"urls\">");
        for url in urls {
            let _ = write!(page, "<li><code>{}</code></li>", Text(url));
        }
        page.push_str("</ul>");
    }
    page.push_str("</section>");
}

fn ladder(page: &mut String, rungs: &[RungReport]) {
    page.push_str(
        "<section><h2>The way to us</h2><table><caption>From the cable up; the first step that fails is the one to look at.</caption>\
         <thead><tr><th scope=\"col\">Step</th><th scope=\"col\">State</th><th scope=\"col\">Seen</th></tr></thead><tbody>",
    );
    for rung in rungs {
        let (class, word) = match rung.status {
            RungStatus::Ok => ("ok", "holds"),
            RungStatus::Failed => ("failed", "fails"),
            RungStatus::NotReached => ("unknown", "not reached"),
            RungStatus::Trying => ("unknown", "being tried"),
        };
        let code = rung
            .code
            .map_or_else(String::new, |code| format!(" {code}"));
        let (name, evidence) = (rung.rung.to_string(), Text(&rung.evidence));
        let _ = write!(
            page,
            "<tr class=\"{class}\"><th scope=\"row\">{}</th><td>{word}{code}</td><td>{evidence}</td></tr>",
            Text(&name)
        );
    }
    page.push_str("</tbody></table></section>");
}

/// Where customers push to; not from the box itself, which is what loopback would mean to them.
pub fn urls(status: &Status) -> impl Iterator<Item = &str> {
    let loopback = |url: &&str| url.contains("//127.") || url.contains("//[::1]");
    let urls = status.lan_urls.iter().map(String::as_str);
    urls.filter(move |url| !loopback(url))
}

/// A number of bytes as people say it.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let (mut whole, mut tenths) = (count, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        tenths = whole % 1000 / 100;
        whole /= 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{whole} {}", UNITS[unit]),
        _ => format!("{whole}.{tenths} {}", UNITS[unit]),
    }
}

/// Text that is no markup, whatever it holds.
pub(super) struct Text<'a>(pub &'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::status;

    #[test]
    fn what_the_network_says_is_never_markup() {
        let mut status = status();
        status.lan.rungs[0].evidence = "<script>alert('&')</script>".to_owned();

        let page = page(&status);

        assert!(!page.contains("<script>alert"), "{page}");
        assert!(
            page.contains("&lt;script&gt;alert(&#39;&amp;&#39;)"),
            "{page}"
        );
    }

    #[test]
    fn the_clouds_words_stand_at_the_step_that_it_names() {
        let mut status = status();
        for rung in &mut status.lan.rungs {
            rung.status = RungStatus::Ok;
            rung.code = None;
        }
        status.guide = Some(Guide {
            step: Step::Ticket,
            text: "Get <your> ticket.".to_owned(),
        });

        let page = main(&status);

        let current = page.split("aria-current").nth(1).unwrap();
        let current = current.split("</li>").next().unwrap();
        assert!(current.contains("Get &lt;your&gt; ticket."), "{page}");
        assert!(current.contains("Get a ticket"), "{page}");
    }

    #[test]
    fn progress_is_told_in_files_and_bytes() {
        let mut status = status();
        status.lan.vault.objects = 10;
        status.lan.vault.pending_objects = 3;
        status.lan.vault.pending_bytes = 12_345_678;

        let page = main(&status);

        assert!(
            page.contains("7 of 10 files are in your bucket, 12.3 MB to go"),
            "{page}"
        );
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_000), "1.0 kB");
        assert_eq!(bytes(u64::MAX), "18446744.0 TB");
    }
}
