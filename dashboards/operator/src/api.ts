import { signal } from "@preact/signals";
import type { Me, Role } from "./types";

/** Who is logged in: undefined until it is known, null for nobody. */
export const me = signal<Me | null | undefined>(undefined);

const ROLES: readonly Role[] = ["customer", "viewer", "operator", "admin"];

/** Whether whoever is logged in may do what takes `role`. The cloud checks; this only hides what it would refuse. */
export function may(role: Role): boolean {
  return me.value != null && ROLES.indexOf(me.value.role) >= ROLES.indexOf(role);
}

/** The cloud's clock minus this browser's, so that ages do not depend on the operator's clock. */
let skew = 0;

/** The cloud's time; moves once a second. */
export const now = signal(Date.now());
setInterval(() => {
  now.value = Date.now() + skew;
}, 1000);

/** The cloud refused, or could not be reached. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function refusal(answer: Response): Promise<Refused> {
  let text = `the cloud answered ${answer.status}`;
  try {
    const problem = (await answer.json()) as { title?: unknown; detail?: unknown };
    if (typeof problem.title === "string") text = problem.title;
    if (typeof problem.detail === "string") text += `: ${problem.detail}`;
  } catch {
    // Not a problem document: the status has to do.
  }
  return new Refused(answer.status, text);
}

/** One request. A session that has ended leads to the log-in page. */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (method !== "GET") headers["x-longhaul-csrf"] = "1";
  const init: RequestInit = { method, headers };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Refused(0, "the cloud cannot be reached");
  }
  if (!answer.ok) {
    if (answer.status === 401) me.value = null;
    throw await refusal(answer);
  }
  if (answer.status === 204) return undefined as T;
  const value = (await answer.json()) as T;
  const time = (value as { server_time?: unknown } | null)?.server_time;
  if (typeof time === "number") {
    skew = time - Date.now();
    now.value = time;
  }
  return value;
}

export const get = <T>(path: string): Promise<T> => call<T>("GET", path);

/** A path with those parameters that have a value. */
export function query(path: string, parameters: Record<string, string | number | undefined | null>): string {
  const set = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value != null && value !== "") set.set(name, String(value));
  }
  const text = set.toString();
  return text === "" ? path : `${path}?${text}`;
}

/** What to tell the operator about an error. */
export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
