//! The parts that roles are made of.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use longhaul_broker::{Bus, BusConfig, Calls, Edge, EdgeConfig, Incoming, Inflow};
use longhaul_protocol::backbone::EdgeId;
use longhaul_provisioning::ca::{CaError, Identity};
use tokio::net::{TcpListener, UdpSocket};

use super::tasks::Tasks;
use super::{CloudError, keep, sessions, shown, telemetry, turn};
use crate::alerts::deliver::Senders;
use crate::alerts::email::Mailer;
use crate::alerts::webhook::Webhooks;
use crate::alerts::{deliver, trust, watch};
use crate::boxes_port::BoxesPort;
use crate::config::{Backbone, Config, Role, Smtp};
use crate::consumer;
use crate::fleet::{Admitted, Fleet, FleetEvent};
use crate::http::People;
use crate::identity::CloudIdentity;
use crate::listen::Listen;
use crate::sso::Sso;
use crate::traces::{self, Exporter};
use crate::unpack;

/// Connections of people at once.
const PEOPLE: usize = 4096;
/// Connections of boxes at once: each holds one for as long as it delivers.
const BOXES: usize = 20_000;
/// Bytes of boxes' messages that wait in a worker.
const BACKLOG: usize = 32 << 20;
/// Largest event that is passed on to live views, in bytes.
const EVENT: usize = 64 << 10;

/// Connects to the backbone.
pub(super) async fn bus(backbone: &Backbone, role: Role, id: EdgeId) -> Result<Bus, CloudError> {
    let path = &backbone.certificate;
    let own = Identity::open(path)?.ok_or_else(|| CaError::Missing(path.clone()))?;
    let config = BusConfig {
        servers: backbone.servers.clone(),
        chain: own.chain().to_vec(),
        key: own.key(),
        roots: longhaul_provisioning::backbone::roots(&backbone.roots)?,
        name: format!("{role}-{id}"),
    };
    Ok(Bus::connect(config).await?)
}

/// What a process has of the way between boxes and the cloud.
pub(super) struct Joined {
    pub edge: Option<Edge>,
    calls: Option<Calls>,
    incoming: Option<Incoming>,
    inflow: Option<Inflow>,
}

/// Starts the edge, and joins the workers, as the role wants it.
pub(super) async fn join(
    config: &Config,
    identity: &Arc<CloudIdentity>,
    admitted: &Arc<Admitted>,
    tasks: &Tasks,
    bus: Option<Bus>,
    id: EdgeId,
) -> Result<Joined, CloudError> {
    let tls = shown(identity, |tls| &tls.mqtt);
    let edge = EdgeConfig {
        listen: config.listen_mqtt,
        ..EdgeConfig::default()
    };
    let admitted = Arc::clone(admitted);
    let stop = tasks.edge_token();
    let mut joined = Joined {
        edge: None,
        calls: None,
        incoming: None,
        inflow: None,
    };
    let Some(bus) = bus else {
        let (edge, incoming) = Edge::start(edge, move || tls(), admitted, stop).await?;
        joined.edge = Some(edge);
        joined.incoming = Some(incoming);
        return Ok(joined);
    };
    if config.role.has_work() {
        let (inflow, incoming) = bus.incoming(BACKLOG).await?;
        joined.inflow = Some(inflow);
        joined.incoming = Some(incoming);
    }
    if config.role.has_edge() {
        let started = Edge::start_behind(bus, id, edge, move || tls(), admitted, stop);
        let (edge, calls) = started.await?;
        joined.edge = Some(edge);
        joined.calls = Some(calls);
    }
    Ok(joined)
}

/// Everything between boxes and the database.
pub(super) async fn between(
    fleet: &Fleet,
    joined: Joined,
    boxes: Option<TcpListener>,
    tasks: &mut Tasks,
) -> Result<(), CloudError> {
    if let Some(incoming) = joined.incoming {
        tasks.consumer("MQTT consumer", consumer::run(fleet.clone(), incoming));
    }
    if let Some(inflow) = joined.inflow {
        tasks.inflow(inflow);
    }
    if let Some(edge) = &joined.edge {
        tasks.watch_edge(edge.clone());
        if fleet.db().is_shared() {
            let (fleet, edge) = (fleet.clone(), edge.clone());
            tasks.front("sessions", |stop| sessions::hold(fleet, edge, stop));
        }
    }
    if let Some(calls) = joined.calls {
        let fleet = fleet.clone();
        tasks.front("calls", |stop| async move {
            stop.run_until_cancelled(sessions::answer(fleet, calls))
                .await;
        });
    }
    if let Some(listener) = boxes {
        let at = joined.edge.as_ref().map(Edge::local_addr);
        echo(listener.local_addr().ok().into_iter().chain(at), tasks).await;
        let identity = Arc::clone(fleet.identity_shared());
        let listen = Listen {
            listener,
            tls: shown(&identity, |tls| &tls.boxes),
            max_connections: BOXES,
            mqtt: joined.edge,
            strangers: Some(shown(&identity, |tls| &tls.s3)),
        };
        let port = BoxesPort::new(fleet.clone())?;
        tasks.front("boxes' port", |stop| listen.serve(port, stop));
    }
    if fleet.db().is_shared() {
        let rings = match fleet.line().bus() {
            Some(bus) => Some(bus.states().await?),
            None => None,
        };
        let fleet = fleet.clone();
        tasks.front("boxes' states", |stop| {
            sessions::follow_states(fleet, rings, stop)
        });
    }
    if let Some(bus) = fleet.line().bus() {
        tasks.watch_bus(bus.clone());
    }
    Ok(())
}

/// Tells probes from where they are seen, on the boxes' ports over UDP; where one is taken, probes
/// learn less.
async fn echo(ports: impl Iterator<Item = SocketAddr>, tasks: &mut Tasks) {
    for address in ports {
        match UdpSocket::bind(address).await {
            Ok(socket) => tasks.front("probes' echo", |stop| super::echo::answer(socket, stop)),
            Err(error) => tracing::warn!(%address, %error, "no UDP echo for probes"),
        }
    }
}

/// The people's port.
pub(super) async fn people(
    fleet: &Fleet,
    config: &Config,
    listener: TcpListener,
    tasks: &mut Tasks,
) -> Result<(), CloudError> {
    if let Some(bus) = fleet.line().bus() {
        let (events, fleet) = (bus.events().await?, fleet.clone());
        tasks.front("events", |stop| async move {
            let passed = events.for_each(|event| {
                if event.len() <= EVENT
                    && let Ok(event) = serde_json::from_slice::<FleetEvent>(&event)
                {
                    fleet.tell_here(event);
                }
                std::future::ready(())
            });
            stop.run_until_cancelled(passed).await;
        });
    }
    let identity = Arc::clone(fleet.identity_shared());
    let listen = Listen {
        listener,
        tls: shown(&identity, |tls| &tls.people),
        max_connections: PEOPLE,
        mqtt: None,
        strangers: None,
    };
    let (db, clock, served) = (fleet.db().clone(), fleet.clock().clone(), fleet.clone());
    let sso = match &config.sso {
        Some(sso) => Some(Arc::new(Sso::new(sso.clone(), trust::public()?.as_ref())?)),
        None => None,
    };
    tasks.front("people's port", |stop| {
        let mut people = People::new(db, served, clock, stop);
        people.sso = sso;
        crate::http::serve(listen, people)
    });
    Ok(())
}

/// What is done behind the ports.
pub(super) async fn work(
    fleet: &Fleet,
    config: &Config,
    tasks: &mut Tasks,
) -> Result<(), CloudError> {
    if !fleet.db().is_shared() {
        unpack::resume(fleet).await?;
    }
    let unpacked = fleet.clone();
    tasks.front("unpacker", |stop| unpack::run(unpacked, stop));
    let bulk = fleet.clone();
    tasks.front("bulk commands", |stop| {
        let until = stop.clone();
        turn::take_turns(bulk, "bulk", stop, move |fleet| {
            fleet.bulk_run(until.clone())
        })
    });
    let kept = fleet.clone();
    tasks.front("upkeep", |stop| {
        turn::take_turns(kept, "upkeep", stop, keep::run)
    });
    if let Some(url) = &config.otlp {
        let exporter = Exporter::new(url, &trust::public()?)?;
        let traced = fleet.clone();
        tasks.front("traces", |stop| {
            turn::take_turns(traced, "traces", stop, move |fleet| {
                traces::run(fleet, exporter.clone())
            })
        });
    }
    let (rolled, retention) = (fleet.clone(), config.telemetry);
    tasks.front("telemetry", |stop| {
        turn::take_turns(rolled, "telemetry", stop, move |fleet| {
            telemetry::run(fleet, retention)
        })
    });
    if fleet.db().is_shared() {
        let buried = fleet.clone();
        tasks.front("presence", |stop| {
            turn::take_turns(buried, "presence", stop, sessions::bury)
        });
    }
    let watched = fleet.clone();
    tasks.front("alert watch", |stop| watch::run(watched, stop));
    let (told, senders) = (fleet.clone(), senders(config)?);
    tasks.front("alert delivery", |stop| deliver::run(told, senders, stop));
    Ok(())
}

/// What tells of alerts.
fn senders(config: &Config) -> Result<Senders, CloudError> {
    let mail = config.notify.smtp.as_ref();
    let tls = trust::public()?;
    let mailer = |m: &Smtp| Mailer::new(&m.url, &m.from, Arc::clone(&tls));
    Ok(Senders {
        mailer: mail.map(mailer).transpose()?,
        webhooks: Webhooks::new(config.notify.reach, tls),
    })
}
