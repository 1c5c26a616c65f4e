//! The page on which a box without a line shows its request and takes the answer.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};

use super::desk::Desk;
use super::html::{Text, frame};
use crate::console::Status;

/// Modules of quiet around a QR code: ISO/IEC 18004 wants four.
const QUIET: usize = 4;

/// The page; `alert` says why the last answer was not looked at.
pub fn page(status: &Status, desk: &Desk, alert: &str) -> String {
    let mut main = String::from("<h1>Without a line to us</h1>");
    if !alert.is_empty() {
        let _ = write!(
            main,
            "<div class=\"trouble\" role=\"alert\"><p>{}</p></div>",
            Text(alert)
        );
    }
    let said = status.offline.said();
    if !said.is_empty() {
        let _ = write!(
            main,
            "<p class=\"here\" role=\"status\">{}</p>",
            Text(&said)
        );
    }
    if status.offline.lines.is_empty() {
        main.push_str("<p>The box asks for nothing now. If it cannot reach us and is not registered, its request stands here after a minute.</p>");
    } else {
        asked(&mut main, status, desk);
    }
    main.push_str("<p><a href=\"/\">Back to the box</a></p>");
    frame(status, "Without a line", &main, false)
}

fn asked(main: &mut String, status: &Status, desk: &Desk) {
    main.push_str(
        "<h2>1. Take the request to our portal</h2>\
         <p><a href=\"/offline/request.txt\" download>Save the request</a>, on a phone for example, and give it to the portal under <em>Box without a line</em>. Or scan these codes and paste what they say there, in any order.</p>\
         <ul class=\"codes\">",
    );
    let of = status.offline.lines.len();
    for (at, line) in status.offline.lines.iter().enumerate() {
        let number = at + 1;
        let _ = write!(
            main,
            "<li><figure>{}<figcaption>{number} of {of}</figcaption></figure></li>",
            svg(line, &format!("Code {number} of {of}"))
        );
    }
    let _ = write!(
        main,
        "</ul><h2>2. Bring the answer</h2>\
         <form method=\"post\" action=\"/offline\"><input type=\"hidden\" name=\"token\" value=\"{}\">\
         <p class=\"field\"><label for=\"answer\">The answer</label>\
         <span class=\"hint\" id=\"answer-hint\">Open the file that the portal gave you, and paste all of it. Nobody else's answer fits this box.</span>\
         <textarea id=\"answer\" name=\"answer\" rows=\"6\" required spellcheck=\"false\" aria-describedby=\"answer-hint\"></textarea></p>\
         <p><button type=\"submit\">Register the box</button></p></form>\
         <p>Or copy the file to a USB stick, and plug that into the box.</p>",
        Text(desk.token())
    );
}

/// What stands there while an answer is looked at.
pub fn taken(status: &Status) -> String {
    let main = "<h1>The box looks at the answer</h1>\
         <p>This takes some seconds. <a href=\"/offline\">See what became of it</a>.</p>";
    frame(status, "Without a line", main, false)
}

/// A QR code as a picture of one path; empty where the text is too long for one.
fn svg(text: &str, label: &str) -> String {
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else {
        return String::new();
    };
    let width = code.width();
    let side = width + 2 * QUIET;
    let mut path = String::new();
    for (at, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let (x, y) = (at % width + QUIET, at / width + QUIET);
            let _ = write!(path, "M{x} {y}h1v1h-1z");
        }
    }
    format!(
        "<svg role=\"img\" aria-label=\"{}\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path fill=\"#000\" d=\"{path}\"/></svg>",
        Text(label)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::status;
    use tokio::sync::mpsc;

    #[test]
    fn the_request_is_shown_code_by_code_and_nothing_when_there_is_none() {
        let desk = Desk::new(None, 120, mpsc::channel(1).0);
        let mut status = status();
        assert!(page(&status, &desk, "").contains("asks for nothing"));

        status.offline.lines = vec!["LH1/0123456789AB/01/02/AAAA".to_owned(); 2];
        let shown = page(&status, &desk, "<b>");

        assert_eq!(shown.matches("<svg").count(), 2);
        assert!(shown.contains("Code 2 of 2"), "{shown}");
        assert!(shown.contains("&lt;b&gt;"), "{shown}");
        assert!(super::super::main(&status).contains("/offline"));
    }
}
