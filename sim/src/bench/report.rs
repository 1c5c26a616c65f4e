//! The results as people read them: a table for the terminal, a page for the repository.

use std::fmt::Write as _;

use super::row::Row;

/// Under what circumstances one topic was measured.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// What was measured, as `--only` names it.
    pub topic: &'static str,
    /// Load of the machine before and after; above 0 before, others were working too.
    pub load: (f64, f64),
    /// What was done, and what each run gave.
    pub lines: Vec<String>,
    /// Where the server's time went: threads and their processor seconds.
    pub threads: Vec<(String, f64)>,
}

/// The machine that everything was measured on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// Its cores.
    pub cores: usize,
    /// Its memory, in bytes.
    pub memory: u64,
}

/// The table, in columns.
pub fn terminal(rows: &[Row]) -> String {
    let lines: Vec<[String; 6]> = std::iter::once(HEADINGS.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// What a page is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its heading.
    pub title: &'static str,
    /// The target of `make` that measures it.
    pub target: &'static str,
    /// What runs beside what, in a few sentences.
    pub terms: &'static str,
}

/// `docs/benchmarks/transfer.md`.
pub const TRANSFER: Subject = Subject {
    title: "Transfer: what it costs",
    target: "bench-transfer",
    terms: "Client and server share it, over loopback. Our box: TLS, every byte encrypted, verified and synced to the\n\
        disk before it is acknowledged. The servers beside it: plain HTTP, no encryption, no sync.",
};

/// `docs/benchmarks/fleet.md`.
pub const FLEET: Subject = Subject {
    title: "Fleet: what many boxes cost",
    target: "bench-fleet",
    terms: "Servers and simulated boxes share it, over loopback: what the boxes cost is not counted, but it\n\
        takes time from the servers. All boxes use TLS 1.3 and show their own certificate, to our edge and to mosquitto alike.",
};

/// The results as a page of the repository.
pub fn page(subject: &Subject, rows: &[Row], machine: &Machine, plot: &str) -> String {
    let mut text = format!(
        "# {}\n\n\
         Written by the program; nothing here is typed in. `make {}` measures everything again, `ONLY=topic` one topic.\n\n\
         {}, {} cores, {} GiB. {} Medians; `x` is how many times better\n\
         than what stands beside it in the same run.\n\n",
        subject.title,
        subject.target,
        machine.processor,
        machine.cores,
        machine.memory >> 30,
        subject.terms,
    );
    let _ = writeln!(text, "| {} |", HEADINGS.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(HEADINGS.len()));
    for row in rows {
        let cells = cells(row).map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    let _ = write!(
        text,
        "\n![times better than what stands beside it]({plot})\n\n\
         What each run gave, the load of the machine and where the time went: [details](details). What was done about what was missed:\n\
         [notes](notes.md).\n\n"
    );
    let mut measured: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row.date.as_str(), row.command.as_str()))
        .collect();
    measured.sort_unstable();
    measured.dedup();
    for (date, command) in measured {
        let _ = writeln!(text, "- {date}: `{command}`");
    }
    text
}

/// `docs/benchmarks/details/{topic}.md`.
pub fn details(detail: &Detail, date: &str) -> String {
    let (before, after) = detail.load;
    let mut text = format!(
        "# {}\n\n{date}; load of the machine before {before}, after {after}.\n\n",
        detail.topic
    );
    for line in &detail.lines {
        let _ = writeln!(text, "- {line}");
    }
    let total: f64 = detail.threads.iter().map(|(_, seconds)| seconds).sum();
    if total > 0.0 {
        text += "\n| threads of the box | CPU s | share |\n|---|---|---|\n";
        for (name, seconds) in &detail.threads {
            let share = 100.0 * seconds / total;
            let _ = writeln!(text, "| {name} | {seconds:.2} | {share:.0}% |");
        }
    }
    text
}

const HEADINGS: [&str; 6] = ["measured", "value", "target", "met", "beside", "x"];

fn cells(row: &Row) -> [String; 6] {
    let beside = match (&row.beside, row.beside_value) {
        (Some(name), Some(value)) => format!("{name}: {value}"),
        _ => String::new(),
    };
    [
        row.metric.clone(),
        format!("{} {}", row.value, row.unit),
        row.target.map(|t| t.to_string()).unwrap_or_default(),
        match row.met {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => String::new(),
        },
        beside,
        row.ratio.map(|r| r.to_string()).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::{COST, RATE, origin};
    use super::super::row::{Beside, Row};
    use super::*;

    fn rows() -> Vec<Row> {
        let beside = Beside {
            name: "a | peer".to_owned(),
            samples: vec![0.1],
        };
        let rows = [
            RATE.row(&[1.0], Some(&beside), &origin()),
            COST.row(&[0.3], None, &origin()),
        ];
        rows.into_iter().flatten().collect()
    }

    #[test]
    fn the_table_has_a_line_for_each_row_in_columns() {
        let text = terminal(&rows());

        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "rate      1 GB    0.9     yes  a | peer: 0.1  10");
        assert_eq!(lines[2], "cost      0.3 ms  0.15    no");
    }

    #[test]
    fn the_page_says_what_was_missed_and_how_it_was_measured() {
        let machine = Machine {
            processor: "a processor".to_owned(),
            cores: 2,
            memory: 8 << 30,
        };
        let text = page(&TRANSFER, &rows(), &machine, "transfer.svg");

        assert!(
            text.contains("| cost | 0.3 ms | 0.15 | no |  |  |"),
            "{text}"
        );
        assert!(text.contains("a \\| peer: 0.1"), "{text}");
        assert!(
            text.contains("- 2026-01-02: `make bench-transfer`"),
            "{text}"
        );
        assert!(text.contains("a processor, 2 cores, 8 GiB"), "{text}");
    }

    #[test]
    fn the_details_share_out_the_time() {
        let detail = Detail {
            topic: "bulk",
            load: (0.5, 2.0),
            lines: vec!["a run".to_owned()],
            threads: vec![("vault-log".to_owned(), 1.0), ("worker".to_owned(), 3.0)],
        };
        let text = details(&detail, "2026-01-02");

        assert!(text.contains("| worker | 3.00 | 75% |"), "{text}");
        assert!(text.contains("before 0.5, after 2"), "{text}");
    }
}
