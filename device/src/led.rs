//! The box's lamp, through the kernel's LED class (`Documentation/ABI/testing/sysfs-class-led*`).
//!
//! All is well: steady. Starting: one second on, one off. Looked for: as fast as an eye can see. Else the
//! code, digit by digit: so many flashes for each (a long one for nought), a pause between them, a long
//! pause before it begins anew. The kernel does the flashing, also while the agent is busy.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::indicator::{Indicator, Shown};

/// Where the kernel shows its LEDs.
const CLASS: &str = "/sys/class/leds";
/// A flash, and the dark after it, in milliseconds.
const FLASH: u32 = 250;
/// The flash for nought.
const LONG: u32 = 1_000;
/// The dark between digits, and before the code begins anew.
const BETWEEN: u32 = 1_000;
const ANEW: u32 = 3_000;
/// Half of a period: starting, and looked for.
const CALM: u32 = 1_000;
const HASTY: u32 = 60;

/// Light or dark, and for how many milliseconds.
pub type Phase = (bool, u32);

/// What the lamp does, over and over; a single phase is for ever.
pub fn pattern(shown: Shown) -> Vec<Phase> {
    match shown {
        Shown::Online => vec![(true, CALM)],
        Shown::Starting => vec![(true, CALM), (false, CALM)],
        Shown::Here => vec![(true, HASTY), (false, HASTY)],
        Shown::Code(code) => {
            let number = code.entry().number;
            let mut phases = Vec::new();
            for digit in [number / 100 % 10, number / 10 % 10, number % 10] {
                if digit == 0 {
                    phases.extend([(true, LONG), (false, FLASH)]);
                }
                for _ in 0..digit {
                    phases.extend([(true, FLASH), (false, FLASH)]);
                }
                if let Some((_, dark)) = phases.last_mut() {
                    *dark = BETWEEN;
                }
            }
            if let Some((_, dark)) = phases.last_mut() {
                *dark = ANEW;
            }
            phases
        }
    }
}

/// The digits that somebody reads who counts the flashes of a code.
pub fn digits(phases: &[Phase]) -> Vec<u32> {
    let mut digits = Vec::new();
    let mut count = 0;
    for phase in phases {
        match *phase {
            (true, LONG) => count = 0,
            (true, _) => count += 1,
            (false, FLASH) => {}
            (false, _) => digits.push(std::mem::take(&mut count)),
        }
    }
    digits
}

/// One LED.
pub struct Led {
    dir: PathBuf,
    /// What went wrong last: it is said once.
    trouble: Option<String>,
}

impl Led {
    /// The LED of this name, or of this folder.
    pub fn new(name: &str) -> Self {
        Self {
            dir: Path::new(CLASS).join(name),
            trouble: None,
        }
    }

    fn set(&self, shown: Shown) -> io::Result<()> {
        let phases = pattern(shown);
        let most = std::fs::read_to_string(self.dir.join("max_brightness"));
        let most = most.ok().and_then(|text| text.trim().parse::<u32>().ok());
        let most = most.filter(|most| *most > 0).unwrap_or(1);
        let light = |on: bool| if on { most } else { 0 };
        let offers = std::fs::read_to_string(self.dir.join("trigger")).unwrap_or_default();
        let offers = |name: &str| {
            let mut all = offers.split_ascii_whitespace();
            all.any(|offer| offer.trim_matches(['[', ']']) == name)
        };
        match phases.as_slice() {
            [(on, _)] => {
                self.write_if("trigger", "none", offers("none"))?;
                self.write("brightness", &light(*on).to_string())
            }
            phases if offers("pattern") => {
                self.write("trigger", "pattern")?;
                // Each step a jump: the kernel would else fade from one to the next.
                let steps: Vec<_> = phases
                    .iter()
                    .map(|(on, millis)| format!("{0} {millis} {0} 0", light(*on)))
                    .collect();
                self.write("pattern", &steps.join(" "))?;
                self.write("repeat", "-1")
            }
            // Codes cannot be told, but that something is to be looked at.
            phases if offers("timer") => {
                let of = |on: bool| phases.iter().find(|phase| phase.0 == on);
                self.write("trigger", "timer")?;
                for (file, on) in [("delay_on", true), ("delay_off", false)] {
                    let millis = of(on).map_or(CALM, |phase| phase.1);
                    self.write(file, &millis.to_string())?;
                }
                Ok(())
            }
            _ => {
                self.write_if("trigger", "none", offers("none"))?;
                let lit = matches!(shown, Shown::Here);
                self.write("brightness", &light(lit).to_string())
            }
        }
    }

    fn write_if(&self, file: &str, text: &str, there: bool) -> io::Result<()> {
        if there {
            self.write(file, text)
        } else {
            Ok(())
        }
    }

    /// In one piece, as the kernel takes it, and only into a file that is there.
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        let path = self.dir.join(file);
        let opened = OpenOptions::new().write(true).truncate(true).open(path);
        opened
            .and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()))
            .map_err(named)
    }
}

impl Indicator for Led {
    fn show(&mut self, shown: Shown) -> bool {
        let failed = self.set(shown).err().map(|error| error.to_string());
        if failed != self.trouble
            && let Some(error) = &failed
        {
            tracing::warn!(led = %self.dir.display(), error, "the LED shows nothing");
        }
        self.trouble = failed;
        self.trouble.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder as the kernel shows an LED: what is not there cannot be made by writing.
    fn led(triggers: &str) -> (tempfile::TempDir, Led) {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("trigger", triggers),
            ("brightness", "0\n"),
            ("max_brightness", "255\n"),
        ];
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        for (trigger, files) in [
            ("pattern", ["pattern", "repeat"]),
            ("timer", ["delay_on", "delay_off"]),
        ] {
            if triggers.contains(trigger) {
                for file in files {
                    fs::write(dir.path().join(file), "").unwrap();
                }
            }
        }
        let led = Led::new(dir.path().to_str().unwrap());
        (dir, led)
    }

    fn holds(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join(file))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[test]
    fn the_kernel_flashes_the_code() {
        let (dir, mut led) = led("[none] timer pattern\n");

        assert!(led.show(Shown::Code("LH-203".parse().unwrap())));

        assert_eq!(holds(&dir, "trigger"), "pattern");
        assert_eq!(holds(&dir, "repeat"), "-1");
        assert_eq!(
            holds(&dir, "pattern"),
            "255 250 255 0 0 250 0 0 255 250 255 0 0 1000 0 0 \
             255 1000 255 0 0 1000 0 0 \
             255 250 255 0 0 250 0 0 255 250 255 0 0 250 0 0 255 250 255 0 0 3000 0 0"
        );
        fs::write(dir.path().join("trigger"), "none timer [pattern]\n").unwrap();
        assert!(led.show(Shown::Online));
        assert_eq!(
            (holds(&dir, "trigger"), holds(&dir, "brightness")),
            ("none".into(), "255".into())
        );
    }

    #[test]
    fn a_kernel_that_can_do_less_is_used_as_it_can() {
        let (dir, mut led) = led("[none] timer\n");
        assert!(led.show(Shown::Here));
        assert_eq!(
            (holds(&dir, "trigger"), holds(&dir, "delay_on")),
            ("timer".into(), "60".into())
        );

        let (dir, mut led) = self::led("[none]\n");
        assert!(led.show(Shown::Code("LH-101".parse().unwrap())));
        assert_eq!(holds(&dir, "brightness"), "0");
        assert!(led.show(Shown::Online));
        assert_eq!(holds(&dir, "brightness"), "255");
    }

    #[test]
    fn an_led_that_is_missing_or_vanishes_fails_nothing() {
        let mut none = Led::new("no-such-led");
        assert!(!none.show(Shown::Online));

        let (dir, mut led) = led("[none] timer pattern\n");
        assert!(led.show(Shown::Starting));
        fs::remove_file(dir.path().join("pattern")).unwrap();
        assert!(!led.show(Shown::Starting));
        assert!(!dir.path().join("pattern").exists(), "nothing is made");
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(!led.show(Shown::Online));
        fs::create_dir(dir.path()).unwrap();
        fs::write(dir.path().join("brightness"), "0\n").unwrap();
        assert!(led.show(Shown::Online), "it is back");
    }

    #[test]
    fn a_file_that_takes_nothing_is_said_and_no_more() {
        let (dir, mut led) = led("[none]\n");
        fs::remove_file(dir.path().join("brightness")).unwrap();
        // As a read-only file is for root, too.
        fs::create_dir(dir.path().join("brightness")).unwrap();

        assert!(!led.show(Shown::Online));

        assert!(
            led.trouble
                .as_ref()
                .is_some_and(|t| t.contains("brightness"))
        );
    }
}
