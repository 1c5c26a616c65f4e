// What the cloud answers, as far as the dashboard reads it. The contract is fleet-api/openapi.json;
// a test holds these paths and fields against it.

export interface Page<T> {
  items: T[];
  next?: string | null;
  server_time: number;
}

export type Role = "admin" | "operator" | "viewer" | "customer";

export interface Me {
  name: string;
  role: Role;
}

/** What became of a part of a journal that somebody carried. */
export interface JournalTaken {
  box: string;
  taken: number;
  known: number;
  through: number;
}

/** How people log in beside name and password. */
export interface Ways {
  provider?: { name: string; url: string };
}

export interface Rung {
  rung: string;
  status: string;
  code?: string | null;
  title?: string | null;
  evidence?: string;
  since: number;
}

export interface Box {
  id: string;
  label: string;
  site: string;
  hardware: string;
  state: "inventoried" | "active" | "quarantined" | "revoked";
  online: boolean;
  online_since?: number | null;
  last_seen?: number | null;
  changed: number;
  agent_version?: string | null;
  os_version?: string | null;
  certificate_expires?: number | null;
  desired_version: number;
  applied_version: number;
  lan_urls: string[];
  rungs: Rung[];
}

export interface BoxLine extends Box {
  telemetry_at?: number | null;
  telemetry_interval_secs?: number | null;
  vault?: Vault | null;
  alerts: number;
}

export interface Alert {
  id: string;
  box_id: string;
  name: string;
  severity: "warning" | "critical";
  state: "open" | "acknowledged" | "resolved" | "pending";
  text: string;
  since: number;
  acknowledged?: number | null;
  acknowledged_by?: string | null;
  resolved?: number | null;
}

export interface Vault {
  capacity_bytes: number;
  used_bytes: number;
  pending_bytes: number;
  pending_objects: number;
}

export interface Reported {
  desired_version: number;
  telemetry_interval_secs: number;
  agent_version: string;
  slots: { active: string; a?: string | null; b?: string | null };
  problems?: string[];
  uplink?: UplinkState | null;
}

/** What is in force on a box's way to the buckets. */
export interface UplinkState {
  state: "sending" | "paused" | "waiting";
  bytes_per_sec?: number | null;
  code?: string | null;
}

/** Bytes per second; 0 for nothing, null for as much as the line takes. */
export type Limit = number | null;

export type Priority = "urgent" | "normal" | "low";

export interface UplinkPolicy {
  paused: boolean;
  week?: { utc_offset_minutes: number; limits: Limit[][] } | null;
  priorities: Record<string, Priority>;
}

export interface Uplink {
  wanted: UplinkPolicy;
  applied: boolean;
  state?: UplinkState["state"] | null;
  bytes_per_sec?: number | null;
  code?: string | null;
}

export interface BoxUpdate {
  rollout: string;
  version: string;
  state: string;
  reason?: string | null;
  since: number;
}

export interface Quarantine {
  since: number;
  held_by: string;
  reason: string;
  differs: { pcr: number; measures: string; found: string; expected: string }[];
  accepted?: number | null;
}

export interface BoxDetail {
  box: Box;
  telemetry?: Telemetry | null;
  telemetry_at?: number | null;
  reported?: Reported | null;
  reported_at?: number | null;
  update?: BoxUpdate | null;
  quarantine?: Quarantine | null;
  uploads: { state: string; count: number; bytes: number }[];
  server_time: number;
}

export interface Telemetry {
  load_1m: number;
  memory_available_bytes: number;
  memory_total_bytes: number;
  uptime_secs: number;
  certificate_expires?: number | null;
  disks: { mount: string; free_bytes: number; total_bytes: number }[];
  networks: { interface: string; received_bytes: number; sent_bytes: number }[];
  temperatures: { sensor: string; celsius: number }[];
  rungs: Rung[];
  vault?: Vault | null;
}

export interface Point {
  at: number;
  load_1m: number;
  memory_used_bytes: number;
  celsius?: number | null;
  pending_bytes?: number | null;
  network_sent_bytes?: number | null;
  network_received_bytes?: number | null;
}

export interface Code {
  code: string;
  title: string;
  customer: string;
  operator: string;
}

export interface Command {
  id: string;
  kind: string;
  command: Record<string, unknown>;
  state: string;
  percent?: number | null;
  progress?: string | null;
  reason?: string | null;
  result?: Record<string, unknown> | null;
  created: number;
  created_by: string;
  expires: number;
  updated: number;
  rollout?: string | null;
  proposal?: { proposed_by: string; approved_by?: string | null; reason: string };
}

/** What a field of a command can be: as much of JSON schema as the cloud uses. */
export interface KindField {
  type: string | string[];
  description?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  "x-unit"?: string;
}

export interface CommandKind {
  kind: string;
  title: string;
  description: string;
  way: "direct" | "two_people" | "rollout";
  schema: { properties: Record<string, KindField>; required: string[] };
}

/** Whom a command for many would reach. */
export interface Blast {
  preview: string;
  boxes: number;
  offline: number;
  quarantined: number;
  revoked: number;
  sites: { site: string; boxes: number }[];
  site_count: number;
  orders: string[];
  order_count: number;
  active_transfers: number;
  takes_two_people: boolean;
}

export interface Bulk {
  id: string;
  filter: string;
  kind: string;
  command: Record<string, unknown>;
  state: "proposed" | "sending" | "sent" | "cancelled" | "refused";
  created_by: string;
  created: number;
  counts: Record<string, number>;
}

export interface BulkBox {
  box_id: string;
  state: string;
  percent?: number;
  reason?: string;
  updated?: number;
}

export interface Proposal {
  id: string;
  box_id?: string;
  kind: string;
  command: Record<string, unknown>;
  reason: string;
  proposed_by: string;
  proposer: string;
  created: number;
  expires: number;
  state: "open" | "approved" | "refused" | "withdrawn" | "expired";
  decided_by?: string;
  note?: string;
}

export interface Transfer {
  id: string;
  bucket: string;
  key: string;
  version: number;
  bytes: number;
  state: string;
  reason?: string | null;
  updated: number;
}

export interface TimelineItem {
  id: string;
  number: number;
  at: number;
  received: number;
  kind: string;
  source: string;
  state?: string | null;
  detail: Record<string, unknown>;
}

export interface StoredObject {
  key: string;
  bytes: number;
  modified: number;
  verified?: number | null;
  blake3?: string | null;
  box_id?: string | null;
}

export interface FleetEvent {
  event: string;
  at?: number;
  box_id?: string;
  agent_version?: string;
  telemetry_interval_secs?: number;
  bucket?: string;
  key?: string;
  sample?: Telemetry;
}

export interface Order {
  id: string;
  customer: string;
  bucket: string;
  note: string;
  created_by: string;
  created: number;
}

/** What was found out about a bucket that objects go to. */
export interface Destination {
  bucket: string;
  /** Null while it was not tried out yet. */
  checked: number | null;
  usable: boolean;
  problems: string[];
  notes: string[];
}

export interface Ticket {
  id: string;
  box_id: string;
  order?: string | null;
  bucket: string;
  access_key: string;
  created_by: string;
  created: number;
  expires: number;
  revoked?: number | null;
}

export interface Release {
  version: string;
  target: string;
  sha256: string;
  length: number;
}

export interface RolloutLine {
  id: string;
  version: string;
  started_by: string;
  started_at: number;
}

export interface Rollout extends RolloutLine {
  aborted_at?: number | null;
  aborted_by?: string | null;
  boxes: RolloutBox[];
}

export interface RolloutBox {
  box_id: string;
  command: string;
  state: string;
  step?: string | null;
  reason?: string | null;
  version_before?: string | null;
  version_after?: string | null;
  since: number;
}

export interface Operator {
  name: string;
  role: Role;
  tenant?: string | null;
  created: number;
}

export interface Token {
  id: string;
  name: string;
  role: Role;
  tenant?: string | null;
  created_by: string;
  created: number;
  expires?: number | null;
  revoked?: number | null;
}

export interface AuditItem {
  number: number;
  at: number;
  actor: string;
  action: string;
  subject: string;
  detail: unknown;
  hash: string;
}

/** How boxes come online; see `GET /v1/insights/bring-up`. */
export interface BringUp {
  from: number;
  to: number;
  funnel: { step: string; boxes: number }[];
  times: { boots: number; online: number; median_ms?: number | null; p90_ms?: number | null; slowest_ms?: number | null };
  items: BringUpCause[];
  next?: string | null;
}

export interface BringUpCause {
  group: string;
  rung: string;
  code: string;
  title: string;
  failures: number;
  boxes: number;
  lasting: number;
  held_up_ms: number;
  longest_ms: number;
  fixes: Record<string, number>;
}

export interface BringUpBoot {
  box_id: string;
  boot: string;
  began: number;
  release: string;
  site: string;
  power_to_online_ms?: number | null;
  reached?: string | null;
  failures: { code: string; title: string; evidence: string; lasted_ms?: number | null; fix?: string | null }[];
}

/** Answers to an order's network questionnaire; what is absent was not answered. */
export interface NetworkAnswers {
  address?: { kind: "dhcp" } | { kind: "static"; address: string; prefix_len: number; gateway?: string; dns?: string[] };
  vlan?: number;
  proxy?: string;
  dot1x?: boolean;
  egress?: { host: string; port: number }[];
}

/** What is known of the network that an order's boxes go to. */
export interface OrderNetwork {
  answers: NetworkAnswers;
  said: NetworkAnswers;
  said_by: Record<string, { by: string; at: number }>;
  found: NetworkAnswers;
  differs: string[];
  report?: string | null;
}
