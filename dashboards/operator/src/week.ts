import { bytes } from "./format";
import type { Limit, UplinkPolicy } from "./types";

export const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
export const HOURS = Array.from({ length: 24 }, (_, hour) => hour);

/** The least limit that the cloud takes, in bytes per second; 0 is nothing at all. */
export const LEAST = 16 * 1024;

/** Limits for each hour of the week, from Monday on. */
export type Week = Limit[][];

/** A week without limits. */
export const free = (): Week => DAYS.map(() => HOURS.map(() => null));

/** The same week with a limit on these days from one hour to before another; past midnight if the end comes first. */
export function between(week: Week, days: readonly boolean[], from: number, to: number, limit: Limit): Week {
  const inside = (hour: number) => (from < to ? hour >= from && hour < to : hour >= from || hour < to);
  return week.map((hours, day) => (days[day] === true ? hours.map((was, hour) => (inside(hour) ? limit : was)) : hours));
}

/** What the cloud is told: a week without limits is none. */
export function policyOf(paused: boolean, week: Week, offset: number, priorities: UplinkPolicy["priorities"]): UplinkPolicy {
  const limited = week.some((hours) => hours.some((limit) => limit !== null));
  return { paused, priorities, ...(limited && { week: { utc_offset_minutes: offset, limits: week } }) };
}

/** A limit in a few characters. */
export function limitText(limit: Limit): string {
  if (limit === null) return "free";
  return limit === 0 ? "nothing" : `${bytes(limit)}/s`;
}

/** The hours of a day that have the same limit, one after the other. */
export function spans(hours: readonly Limit[]): { from: number; to: number; limit: Limit }[] {
  const found: { from: number; to: number; limit: Limit }[] = [];
  hours.forEach((limit, hour) => {
    const last = found.at(-1);
    if (last !== undefined && last.limit === limit) last.to = hour + 1;
    else found.push({ from: hour, to: hour + 1, limit });
  });
  return found;
}
