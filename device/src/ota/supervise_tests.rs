//! Releases are shell scripts here: what counts is what they do, not what they are.

use super::*;
use std::os::unix::fs::PermissionsExt;

const PROVES_ITSELF: &str =
    "printf %s \"$LONGHAUL_AGENT_VERSION\" > \"$2/run/healthy\"; exec sleep 600";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

struct Machine {
    dir: tempfile::TempDir,
    slots: Slots,
}

fn script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

impl Machine {
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::in_state(dir.path());
        let file = dir.path().join("agent");
        script(&file, body);
        slots.install(Slot::A, &file, "1.0", None).unwrap();
        slots.set_current(&Current::running(Slot::A)).unwrap();
        Self { dir, slots }
    }

    /// Runs 1.0 in slot a; slot b holds 2.0, armed.
    fn armed(body: &str) -> Self {
        let machine = Self::new("exec sleep 600");
        let file = machine.dir.path().join("new");
        script(&file, body);
        machine.arm(&file);
        machine
    }

    fn arm(&self, file: &Path) {
        self.slots.install(Slot::B, file, "2.0", None).unwrap();
        let text = |text: &str| serde_json::Value::from(text);
        let command = serde_json::from_value(text("c-1")).unwrap();
        let rollout = serde_json::from_value(text("r-1")).unwrap();
        let current = self.slots.current().unwrap().unwrap();
        let version = "2.0".to_owned();
        self.slots.arm(&current, command, rollout, version).unwrap();
    }

    fn settings(&self, trial: Duration) -> Settings {
        Settings {
            state: self.dir.path().to_owned(),
            config: None,
            factory_agent: self.dir.path().join("agent"),
            factory_version: "1.0".to_owned(),
            trial,
            pause: Duration::from_millis(10),
        }
    }

    /// Supervises until `wanted`.
    async fn until(&self, trial: Duration, wanted: impl Fn(&Current) -> bool) -> Current {
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(self.settings(trial), stop.clone()));
        let wait = async {
            loop {
                assert!(!supervisor.is_finished(), "the supervisor has ended");
                let current = self.slots.current().unwrap().unwrap();
                if wanted(&current) {
                    return current;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let current = tokio::time::timeout(PATIENCE, wait).await.unwrap();
        stop.cancel();
        supervisor.await.unwrap().unwrap();
        current
    }

    /// Supervises until the trial has been judged.
    async fn judged(&self, trial: Duration) -> Current {
        self.until(trial, |current| current.trial.is_none()).await
    }
}

fn reason(current: Current) -> String {
    current.last.unwrap().reason.unwrap()
}

#[tokio::test]
async fn a_release_that_proves_itself_is_kept() {
    let machine = Machine::armed(PROVES_ITSELF);

    let current = machine.judged(PATIENCE).await;

    assert_eq!(current.active, Slot::B);
    assert_eq!(current.last.unwrap().reason, None);
}

#[tokio::test]
async fn a_release_that_ends_on_trial_is_rolled_back_with_its_last_words() {
    let machine = Machine::armed("echo no such luck >&2; exit 9");

    let current = machine.judged(PATIENCE).await;

    assert_eq!(current.active, Slot::A);
    let reason = reason(current);
    assert!(reason.contains("exit status: 9"), "{reason}");
    assert!(reason.contains("no such luck"), "{reason}");
}

#[tokio::test]
async fn what_is_no_program_for_this_machine_is_rolled_back() {
    // A program for another processor, garbage, nothing, one that breaks off, and one of no use.
    let mut alien = std::fs::read("/bin/true").unwrap();
    alien[18..20].copy_from_slice(&[0xf3, 0x00]);
    let whole = std::fs::read("/bin/false").unwrap();
    let (torn, nearly_whole) = (&whole[..100], &whole[..whole.len() - 1]);
    let no_program = "no program for this machine";
    for (bytes, said) in [
        (alien, no_program),
        (b"\x7fELF: echo this must not run".to_vec(), no_program),
        (Vec::new(), no_program),
        (torn.to_vec(), no_program),
        (nearly_whole.to_vec(), no_program),
        (whole, "ended on trial"),
    ] {
        let machine = Machine::new("exec sleep 600");
        let kept = machine.dir.path().join("vault");
        std::fs::write(&kept, "a customer's bytes").unwrap();
        let file = machine.dir.path().join("new");
        std::fs::write(&file, &bytes).unwrap();
        machine.arm(&file);

        let current = machine.judged(PATIENCE).await;

        assert_eq!(current.active, Slot::A);
        let reason = reason(current);
        assert!(reason.contains(said), "{reason}");
        assert_eq!(std::fs::read(&kept).unwrap(), b"a customer's bytes");
    }
}

#[tokio::test]
async fn a_release_that_never_proves_itself_is_rolled_back() {
    let machine = Machine::armed("echo waiting >&2; exec sleep 600");

    let current = machine.judged(Duration::from_millis(500)).await;

    assert_eq!(current.active, Slot::A);
    let reason = reason(current);
    assert!(reason.contains("did not prove itself"), "{reason}");
    assert!(reason.contains("waiting"), "{reason}");
}

#[tokio::test]
async fn a_release_that_always_ends_as_if_it_had_been_asked_to_is_rolled_back() {
    let machine = Machine::armed("exit 0");

    let current = machine.judged(PATIENCE).await;

    assert_eq!(current.active, Slot::A);
    assert!(reason(current).contains("every start"));
}

#[tokio::test]
async fn a_proof_for_another_version_proves_nothing() {
    let machine = Machine::armed("printf 1.0 > \"$2/run/healthy\"; exec sleep 600");

    let current = machine.judged(Duration::from_millis(500)).await;

    assert_eq!(current.active, Slot::A);
}

#[tokio::test]
async fn an_agent_that_proved_itself_may_restart_into_the_next_trial() {
    // 2.0 proves itself, arms 3.0 in slot a as a new command would, and asks to be restarted.
    let machine = Machine::armed(
        "printf %s \"$LONGHAUL_AGENT_VERSION\" > \"$2/run/healthy\"\n\
         while grep -q '\"boots_left\"' \"$2/slots/current.json\"; do sleep 0.02; done\n\
         mv \"$2/next.json\" \"$2/slots/current.json\"; exit 75",
    );
    let file = machine.dir.path().join("new");
    script(&file, PROVES_ITSELF);
    let next = serde_json::json!({
        "active": "b", "last": null,
        "trial": {"slot": "a", "boots_left": 3, "command": "c-2", "rollout": "r-2", "version": "3.0"},
    });
    std::fs::write(machine.dir.path().join("next.json"), next.to_string()).unwrap();
    machine.slots.install(Slot::A, &file, "3.0", None).unwrap();

    let ended = |c: &Current| c.trial.is_none() && c.active == Slot::A;
    let current = machine.until(PATIENCE, ended).await;

    assert_eq!(current.last.unwrap().reason, None);
}

#[tokio::test]
async fn an_agent_that_ends_outside_a_trial_is_started_again() {
    let machine = Machine::new("echo x >> \"$2/starts\"; exit 1");
    let starts = machine.dir.path().join("starts");
    let many = |_: &Current| std::fs::read(&starts).is_ok_and(|s| s.len() >= 6);

    let current = machine.until(PATIENCE, many).await;

    assert_eq!(current, Current::running(Slot::A));
}

#[tokio::test]
async fn there_is_one_supervisor_for_one_state() {
    let machine = Machine::new("exec sleep 600");
    disk::make_dir(&machine.dir.path().join("run")).unwrap();
    let _held = lock(&machine.dir.path().join("run/supervisor.lock"))
        .unwrap()
        .unwrap();

    let ended = supervise(machine.settings(PATIENCE), CancellationToken::new()).await;

    assert!(
        matches!(ended, Err(SuperviseError::AlreadyRunning(_))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_first_start_fills_a_slot_with_what_the_supervisor_brings() {
    let dir = tempfile::tempdir().unwrap();
    let slots = Slots::in_state(dir.path());
    let file = dir.path().join("agent");
    script(&file, "echo $LONGHAUL_SLOTS > \"$2/slot\"; exec sleep 600");
    let machine = Machine { dir, slots };
    let stop = CancellationToken::new();
    let supervisor = tokio::spawn(supervise(machine.settings(PATIENCE), stop.clone()));

    let slot = machine.dir.path().join("slot");
    let started = async {
        while !std::fs::read(&slot).is_ok_and(|text| text == b"a\n") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
    stop.cancel();
    supervisor.await.unwrap().unwrap();

    let report = machine.slots.report(Slot::A).unwrap();
    assert_eq!((report.a.as_deref(), report.b), (Some("1.0"), None));
}
