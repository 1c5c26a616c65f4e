// What the cloud answers, as far as the dashboard reads it. The contract is fleet-api/openapi.json;
// a test holds these paths and fields against it.

export interface Page<T> {
  items: T[];
  next?: string | null;
  server_time: number;
}

export interface Me {
  name: string;
  role: "admin" | "operator" | "viewer";
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
}

export interface BoxDetail {
  box: Box;
  telemetry?: Telemetry | null;
  telemetry_at?: number | null;
  reported?: Record<string, unknown> | null;
  reported_at?: number | null;
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
  vault?: {
    capacity_bytes: number;
    used_bytes: number;
    pending_bytes: number;
    pending_objects: number;
  } | null;
}

export interface Point {
  at: number;
  load_1m: number;
  memory_used_bytes: number;
  celsius?: number | null;
  pending_bytes?: number | null;
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
  sample?: Telemetry;
}
