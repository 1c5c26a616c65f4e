import { signal } from "@preact/signals";

export type Route =
  | { page: "fleet" }
  | { page: "box"; id: string }
  | { page: "data"; bucket: string | undefined; prefix: string }
  | { page: "order" | "rollout"; id: string }
  | { page: "orders" | "releases" | "bring-up" | "bulk" | "alerts" | "audit" | "access" | "offline" | "me" };

const PLAIN = ["orders", "releases", "bring-up", "bulk", "alerts", "audit", "access", "offline", "me"] as const;
/** Where things have pages of their own. */
const ONE = { boxes: "box", orders: "order", rollouts: "rollout" } as const;

/** The page that the fragment of the address names; what is not understood is the fleet. */
export function routeOf(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/");
  const [place = "", name = ""] = parts;
  const plain = PLAIN.find((page) => page === place);
  if (name !== "" && Object.hasOwn(ONE, place)) {
    try {
      return { page: ONE[place as keyof typeof ONE], id: decodeURIComponent(name) };
    } catch {
      return { page: "fleet" };
    }
  }
  if (plain !== undefined) return { page: plain };
  if (place === "data") {
    const set = new URLSearchParams(search);
    return { page: "data", bucket: set.get("bucket") ?? undefined, prefix: set.get("prefix") ?? "" };
  }
  return { page: "fleet" };
}

export const route = signal<Route>(routeOf(location.hash));
addEventListener("hashchange", () => {
  route.value = routeOf(location.hash);
});

export const boxLink = (id: string): string => `#/boxes/${encodeURIComponent(id)}`;
export const orderLink = (id: string): string => `#/orders/${encodeURIComponent(id)}`;
export const rolloutLink = (id: string): string => `#/rollouts/${encodeURIComponent(id)}`;
export const alertsLink = "#/alerts";
export const dataLink = (bucket: string, prefix: string): string =>
  `#/data?${new URLSearchParams({ bucket, prefix }).toString()}`;
