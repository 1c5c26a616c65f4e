//! The console: 80 columns by 25 lines of text, to be read from across a room.
//!
//! It shows what the page, the mDNS record and `longhaul doctor` show; big words say whether all is
//! well, or the code; a QR code carries code and serial to whoever is called.

use longhaul_protocol::journey::Step;
use qrcode::{Color, EcLevel, QrCode};

use crate::console::Status;
use crate::page::{bytes, is_online, step, urls};

/// Columns of a console.
pub const WIDTH: usize = 80;
/// Lines of a console.
pub const HEIGHT: usize = 25;
/// Columns of text beside the QR code.
const BESIDE: usize = 46;
/// Modules of quiet around a QR code; scanners bear two on a dark screen.
const QUIET: i32 = 2;

/// The screen, exactly [`HEIGHT`] lines of at most [`WIDTH`] columns.
pub fn draw(status: &Status) -> String {
    let lan = &status.lan;
    // What the network says must not steer the terminal.
    let plain = |text: &str| text.replace(char::is_control, " ");
    let failing = lan.rungs.iter().find(|rung| rung.code.is_some());
    let online = is_online(&lan.rungs);
    let (word, title, next) = match lan.code() {
        Some(code) => (code.to_string(), code.entry().title, code.entry().customer),
        None if online => ("ONLINE".to_owned(), "all is well", "The box reaches us."),
        None => (
            "WAIT".to_owned(),
            "starting",
            "The box is looking for its way to us. This takes up to a minute.",
        ),
    };
    let mut lines = vec![format!("Longhaul box {}", lan.box_id), String::new()];
    lines.extend(big(&word));
    lines.push(String::new());
    let mut text = vec![title.to_uppercase()];
    text.extend(wrap(next, BESIDE));
    if let Some(rung) = failing {
        text.push(String::new());
        text.extend(
            wrap(&format!("Seen: {}", plain(&rung.evidence)), BESIDE)
                .into_iter()
                .take(3),
        );
    }
    text.push(String::new());
    let (step, _) = step(status);
    let place = step as usize + 1;
    let steps = Step::ALL.len();
    text.extend(wrap(
        &format!("Step {place} of {steps}: {}", step.title()),
        BESIDE,
    ));
    if let Some(left) = lan.network.as_ref().and_then(|report| report.left_secs) {
        text.push(format!("Trying network settings: {left} s left"));
    }
    let vault = &lan.vault;
    let arrived = vault.objects.saturating_sub(vault.pending_objects);
    if vault.objects > 0 {
        let waiting = bytes(vault.pending_bytes);
        text.push(format!(
            "{arrived} of {} files delivered, {waiting} to go",
            vault.objects
        ));
    }
    if let Some(url) = urls(status).next() {
        text.push(format!("Push to {url}"));
    }
    if lan.identifying {
        text.push(">>> THIS IS THE BOX YOU ARE LOOKING FOR <<<".to_owned());
    }
    let code = qr(&format!("{word} {}", lan.box_id));
    let room = HEIGHT - lines.len();
    lines.extend(beside(&text, &code, BESIDE, room));
    lines.join("\n")
}

/// Seconds for which the screen shows how the box is, and each code of a request after that.
const USUAL_SECS: u64 = 12;
const CODE_SECS: u64 = 4;
/// Columns beside a code of a request, which takes all lines.
const BESIDE_CODE: usize = 29;

/// The screen at a second: where the box asks to be registered without a line, it shows its request in
/// between, code by code.
pub fn draw_at(status: &Status, second: u64) -> String {
    let lines = &status.offline.lines;
    let all = USUAL_SECS + CODE_SECS * lines.len() as u64;
    let at = (second % all)
        .checked_sub(USUAL_SECS)
        .map(|at| at / CODE_SECS);
    let at = at.and_then(|at| usize::try_from(at).ok());
    match at.and_then(|at| Some((at, lines.get(at)?))) {
        Some((at, line)) => draw_code(status, at + 1, line),
        None => draw(status),
    }
}

fn draw_code(status: &Status, number: usize, line: &str) -> String {
    let mut text = vec![format!("Longhaul box {}", status.lan.box_id), String::new()];
    text.push("NO LINE TO US".to_owned());
    text.extend(wrap(
        "Scan all codes with a phone, and paste what they say into our portal, under \"Box without a line\". Bring the answer back on a USB stick, or on the box's own page.",
        BESIDE_CODE,
    ));
    text.push(String::new());
    text.push(format!("Code {number} of {}", status.offline.lines.len()));
    if let Some(url) = urls(status).next() {
        text.push(String::new());
        text.extend(wrap(&format!("Push to {url}"), BESIDE_CODE));
    }
    beside(&text, &qr(line), BESIDE_CODE, HEIGHT).join("\n")
}

/// Text beside a code, in so many lines.
fn beside(text: &[String], code: &[String], columns: usize, lines: usize) -> Vec<String> {
    let each = (0..lines).map(|line| {
        let left = text.get(line).map_or("", String::as_str);
        let right = code.get(line).map_or("", String::as_str);
        let left: String = left.chars().take(columns).collect();
        format!("{left:<columns$}  {right}").trim_end().to_owned()
    });
    each.collect()
}

/// How a word begins that fills the screen: its first line.
#[cfg(test)]
pub(crate) fn word(word: &str) -> String {
    big(word).join("\n")
}

/// Words of capitals, digits and dashes, five lines high.
fn big(word: &str) -> Vec<String> {
    let mut lines = vec![String::new(); 5];
    for c in word.chars() {
        let glyph = glyph(c);
        for (row, line) in lines.iter_mut().enumerate() {
            for column in 0..3 {
                let on = glyph >> (14 - (row * 3 + column)) & 1 == 1;
                line.push_str(if on { "███" } else { "   " });
            }
            line.push_str("  ");
        }
    }
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// Three columns by five rows, the first row in the highest bits.
fn glyph(c: char) -> u16 {
    match c {
        '0' | 'O' => 0b111_101_101_101_111,
        '1' => 0b010_110_010_010_111,
        '2' => 0b111_001_111_100_111,
        '3' => 0b111_001_111_001_111,
        '4' => 0b101_101_111_001_001,
        '5' => 0b111_100_111_001_111,
        '6' => 0b111_100_111_101_111,
        '7' => 0b111_001_010_010_010,
        '8' => 0b111_101_111_101_111,
        '9' => 0b111_101_111_001_111,
        'A' => 0b010_101_111_101_101,
        'E' => 0b111_100_111_100_111,
        'H' => 0b101_101_111_101_101,
        'I' => 0b111_010_010_010_111,
        'L' => 0b100_100_100_100_111,
        'N' => 0b111_101_101_101_101,
        'T' => 0b111_010_010_010_010,
        'W' => 0b101_101_101_111_101,
        '-' => 0b000_000_111_000_000,
        _ => 0,
    }
}

/// A QR code, two modules a character, dark on light as scanners want it.
fn qr(text: &str) -> Vec<String> {
    let Ok(code) = QrCode::with_error_correction_level(text, EcLevel::L) else {
        return Vec::new();
    };
    let width = i32::try_from(code.width()).unwrap_or(0);
    let colors = code.to_colors();
    let light = |x: i32, y: i32| {
        let inside = (0..width).contains(&x) && (0..width).contains(&y);
        let at = usize::try_from(y * width + x).unwrap_or(0);
        !inside || colors.get(at) != Some(&Color::Dark)
    };
    let rows = (-QUIET..width + QUIET).step_by(2);
    rows.map(|y| {
        let columns = -QUIET..width + QUIET;
        let cells = columns.map(|x| match (light(x, y), light(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        });
        cells.collect()
    })
    .collect()
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::tests::status;
    use longhaul_protocol::diag::{CODES, RungStatus};

    #[test]
    fn every_code_fits_the_screen() {
        let mut status = status();
        for entry in CODES {
            status.lan.rungs[0].status = RungStatus::Failed;
            status.lan.rungs[0].code = format!("LH-{}", entry.number).parse().ok();
            status.lan.rungs[0].evidence = "somebody else at 192.168.77.100 ".repeat(12);

            let screen = draw(&status);

            let lines: Vec<_> = screen.split('\n').collect();
            assert_eq!(lines.len(), HEIGHT, "{screen}");
            assert!(lines.iter().all(|l| l.chars().count() <= WIDTH), "{screen}");
            let last = entry.customer.split(' ').next_back().unwrap();
            assert!(screen.contains(last), "{} is cut: {screen}", entry.number);
            assert!(screen.contains("Step "), "{screen}");
        }
    }

    #[test]
    fn no_evidence_breaks_the_screen() {
        let mut status = status();
        status.lan.rungs[0].evidence = "\u{1b}[2J\n\n\t\u{7f}".to_owned() + &"x".repeat(400);

        let screen = draw(&status);

        assert_eq!(screen.split('\n').count(), HEIGHT);
        assert!(!screen.contains('\u{1b}'), "{screen:?}");
    }

    #[test]
    fn a_request_is_shown_code_by_code_between_how_the_box_is() {
        let mut status = status();
        let usual = draw(&status);
        assert_eq!(
            draw_at(&status, USUAL_SECS + 1),
            usual,
            "nothing is asked for"
        );
        // The longest line that a request has.
        let head = "LH1/0123456789AB/01/02/".to_owned();
        status.offline.lines = vec![head + &"A2".repeat(100); 2];

        let shown: Vec<_> = (0..USUAL_SECS + 2 * CODE_SECS)
            .map(|second| draw_at(&status, second))
            .collect();

        assert_eq!(
            shown.iter().filter(|text| **text == usual).count() as u64,
            USUAL_SECS
        );
        for screen in &shown {
            let lines: Vec<_> = screen.split('\n').collect();
            assert_eq!(lines.len(), HEIGHT, "{screen}");
            assert!(lines.iter().all(|l| l.chars().count() <= WIDTH), "{screen}");
        }
        let code = shown.last().unwrap();
        assert!(code.contains("Code 2 of 2"), "{code}");
        // Its quiet zone closes it below: all of it is there.
        let last = code.split('\n').next_back().unwrap();
        assert!(last.ends_with('▀') || last.ends_with('█'), "{code}");
    }

    #[test]
    fn a_box_that_is_online_says_so() {
        let mut status = status();
        for rung in &mut status.lan.rungs {
            rung.status = RungStatus::Ok;
            rung.code = None;
        }

        let screen = draw(&status);

        assert!(screen.contains("ALL IS WELL"), "{screen}");
        assert_eq!(big("ONLINE").len(), 5);
        assert!(big("LH-801").iter().all(|l| l.chars().count() <= WIDTH));
        // Every letter that is drawn has a form.
        assert!("ONLINEWAITLH-0123456789".chars().all(|c| glyph(c) != 0));
    }
}
