//! In network namespaces of their own, with the real `ip` and the real kernel. They need root.

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Runs a story where this thread alone sees its network. Where that cannot be had and that is
/// known, says so and does nothing, as the lab does.
fn alone(story: impl AsyncFnOnce(&mut Machine, &Path)) {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(_) if std::env::var_os("LONGHAUL_WITHOUT_NAMESPACES").is_some() => {
            eprintln!("NOT CHECKED: network namespaces cannot be had here");
            return;
        }
        Err(error) => panic!("no network namespace: {error}. This test needs root"),
    }
    let folder = tempfile::tempdir().unwrap();
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 192.0.2.99\n").unwrap();
    let of = Ownership {
        interface: Some("eth0".to_owned()),
        dhcp: Vec::new(),
        resolv_conf,
    };
    // One thread: another would be in another namespace.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        ip("link add eth0 type veth peer name far0").await;
        ip("link set far0 up").await;
        let mut machine = Machine::new(of, folder.path());
        story(&mut machine, folder.path()).await;
    });
}

async fn ip(line: &str) -> String {
    let ran = Command::new("ip").args(line.split(' ')).output().await;
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{line}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

fn settings(json: serde_json::Value) -> NetworkSettings {
    let settings: NetworkSettings = serde_json::from_value(json).unwrap();
    settings.check().unwrap();
    settings
}

fn first() -> NetworkSettings {
    settings(serde_json::json!({
        "addresses": [
            { "address": "192.0.2.7", "prefix_len": 24, "gateway": "192.0.2.1" },
            { "address": "2001:db8::7", "prefix_len": 64, "gateway": "fe80::1" },
        ],
        "dns": ["192.0.2.53"],
    }))
}

fn second() -> NetworkSettings {
    settings(serde_json::json!({
        "addresses": [{ "address": "198.51.100.7", "prefix_len": 25, "gateway": "198.51.100.1" }],
        "dns": ["198.51.100.53", "2001:db8::53"],
    }))
}

#[test]
fn settings_are_in_force_and_go_without_a_trace() {
    alone(async |machine, folder| {
        let none = NetworkSettings::default();
        let resolver = || std::fs::read_to_string(folder.join("resolv.conf")).unwrap();

        machine.apply(&first(), &none).await.unwrap();
        // Twice does no harm.
        machine.apply(&first(), &first()).await.unwrap();
        let (addresses, routes) = (ip("-o address show dev eth0").await, ip("-4 route").await);
        assert!(addresses.contains("192.0.2.7/24"), "{addresses}");
        assert!(addresses.contains("2001:db8::7/64"), "{addresses}");
        assert!(routes.contains("default via 192.0.2.1"), "{routes}");
        assert!(ip("-6 route").await.contains("default via fe80::1"));
        assert_eq!(resolver(), format!("{HEADER}nameserver 192.0.2.53\n"));

        machine.apply(&second(), &first()).await.unwrap();
        let (addresses, routes) = (ip("-o address show dev eth0").await, ip("-4 route").await);
        assert!(addresses.contains("198.51.100.7/25"), "{addresses}");
        assert!(!addresses.contains("192.0.2.7"), "{addresses}");
        assert!(!addresses.contains("2001:db8::7"), "{addresses}");
        assert!(routes.contains("default via 198.51.100.1"), "{routes}");
        assert!(!routes.contains("192.0.2.1"), "{routes}");
        assert!(resolver().contains("nameserver 2001:db8::53"));

        machine.apply(&none, &second()).await.unwrap();
        let addresses = ip("-o -4 address show dev eth0").await;
        assert!(addresses.is_empty(), "{addresses}");
        assert!(ip("-4 route").await.is_empty());
        assert_eq!(resolver(), "nameserver 192.0.2.99\n");
    });
}

#[test]
fn what_the_kernel_refuses_is_said_in_its_words() {
    alone(async |machine, _| {
        ip("link del eth0").await;

        let error = machine.apply(&first(), &second()).await.unwrap_err();

        let text = error.to_string();
        assert!(text.contains("link set dev eth0 up"), "{text}");
        assert!(text.contains("Cannot find device"), "{text}");
    });
}

#[test]
fn a_vlan_carries_the_address_where_the_kernel_has_them() {
    alone(async |machine, _| {
        let probe = Command::new("ip")
            .args([
                "link", "add", "link", "far0", "name", "v1", "type", "vlan", "id", "9",
            ])
            .output()
            .await
            .unwrap();
        if !probe.status.success() {
            eprintln!("NOT CHECKED: this kernel has no VLANs");
            return;
        }
        let mut tagged = first();
        tagged.vlan = Some(7);

        machine
            .apply(&tagged, &NetworkSettings::default())
            .await
            .unwrap();
        let shown = ip("-d -o link show dev lhvlan").await;
        assert!(shown.contains("vlan protocol 802.1Q id 7"), "{shown}");
        assert!(
            ip("-4 route")
                .await
                .contains("default via 192.0.2.1 dev lhvlan")
        );

        machine.apply(&first(), &tagged).await.unwrap();
        assert!(!ip("-o link").await.contains("lhvlan"));
        assert!(
            ip("-4 route")
                .await
                .contains("default via 192.0.2.1 dev eth0")
        );
    });
}

#[test]
fn a_dhcp_client_runs_while_there_is_no_fixed_address() {
    alone(async |machine, folder| {
        let pid = folder.join("pid");
        let script = format!(
            "echo $$ {{interface}} > {0}.new; mv {0}.new {0}; exec sleep 1000",
            pid.display()
        );
        machine.of.dhcp = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
        let none = NetworkSettings::default();
        let running = |pid: &str| Path::new("/proc").join(pid).exists();

        machine.apply(&none, &none).await.unwrap();
        let said = loop {
            if let Ok(said) = std::fs::read_to_string(&pid) {
                break said;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let (client, interface) = said.trim().split_once(' ').unwrap();
        assert_eq!(interface, "eth0");
        assert!(running(client));

        machine.apply(&first(), &none).await.unwrap();
        assert!(!running(client));
    });
}

#[tokio::test]
async fn a_machine_that_is_not_the_agents_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let mut machine = Machine::new(Ownership::default(), folder.path());
    let none = NetworkSettings::default();

    let refused = machine.apply(&first(), &none).await.unwrap_err();

    assert!(
        refused.to_string().contains("network_interface"),
        "{refused}"
    );
    machine.apply(&none, &none).await.unwrap();
    let proxy = settings(serde_json::json!({ "proxy": "http://proxy.example:3128" }));
    machine.apply(&proxy, &none).await.unwrap();
}
