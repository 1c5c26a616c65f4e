//! The results as a picture: how many times better than what stands beside it, drawn as SVG.

use std::fmt::Write as _;

use super::row::Row;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 430.0;
const LINE: f64 = 26.0;
const TOP: f64 = 44.0;
/// Room behind a bar for its number.
const NUMBER: f64 = 60.0;

/// One bar for each row that has something beside it, on a logarithmic scale: to the right of the
/// line is better.
pub fn svg(rows: &[Row]) -> String {
    let bars: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((row, row.ratio.filter(|r| *r > 0.0)?)))
        .collect();
    let reach = bars
        .iter()
        .map(|(_, ratio)| ratio.log10().abs())
        .fold(1.0, f64::max);
    // Worse than the peer goes to the left; there is no more room for it than is needed.
    let left = bars
        .iter()
        .map(|(_, ratio)| (-ratio.log10()).max(0.0))
        .fold(0.0, f64::max);
    let decade = (WIDTH - LABELS - NUMBER) / (reach + left);
    let one = LABELS + left * decade;
    #[expect(clippy::cast_precision_loss, reason = "a handful of rows")]
    let height = TOP + LINE * bars.len() as f64 + 14.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"14\">Times better than what stands beside it (logarithmic)</text>\n"
    );
    let mut y = TOP;
    for (row, ratio) in &bars {
        let length = ratio.log10() * decade;
        let (x, width) = if length < 0.0 {
            (one + length, -length)
        } else {
            (one, length)
        };
        let colour = match (row.met, *ratio < 1.0) {
            (Some(false), _) | (None, true) => "#c2571a",
            _ => "#2a7f62",
        };
        let label = format!(
            "{}, beside {}",
            row.metric,
            row.beside.as_deref().unwrap_or("nothing")
        );
        let _ = write!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{ratio}</text>\n",
            LABELS - 8.0,
            y + 12.0,
            escaped(&label),
            width.max(1.0),
            one.max(x + width) + 6.0,
            y + 12.0,
        );
        y += LINE;
    }
    let _ = write!(
        text,
        "<line x1=\"{one:.1}\" y1=\"{:.1}\" x2=\"{one:.1}\" y2=\"{:.1}\" stroke=\"#333333\"/>\n</svg>\n",
        TOP - 8.0,
        height - 8.0,
    );
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::row::Beside;
    use super::super::row::tests::{RATE, origin};
    use super::*;

    fn row(value: f64, peer: f64) -> Row {
        let beside = Beside {
            name: "a <peer>".to_owned(),
            samples: vec![peer],
        };
        RATE.row(&[value], Some(&beside), &origin()).expect("a run")
    }

    #[test]
    fn each_row_with_a_peer_is_a_bar_inside_the_picture() {
        let alone = RATE.row(&[1.0], None, &origin()).expect("a run");
        let text = svg(&[row(10.0, 1.0), row(1.0, 50.0), alone]);

        assert_eq!(text.matches("height=\"16\"").count(), 2);
        assert!(text.contains("a &lt;peer&gt;"), "{text}");
        for number in text.split(" x=\"").skip(1) {
            let x: f64 = number.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..=WIDTH).contains(&x), "{x}");
        }
        assert!(text.ends_with("</svg>\n"));
    }

    #[test]
    fn a_run_without_peers_is_an_empty_picture() {
        let text = svg(&[]);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
    }
}
