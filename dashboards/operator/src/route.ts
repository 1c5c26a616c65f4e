import { signal } from "@preact/signals";

export type Route =
  | { page: "fleet" }
  | { page: "box"; id: string }
  | { page: "data"; bucket: string | undefined; prefix: string };

/** The page that the fragment of the address names; what is not understood is the fleet. */
export function routeOf(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/");
  if (parts[0] === "boxes" && parts[1] !== undefined && parts[1] !== "") {
    try {
      return { page: "box", id: decodeURIComponent(parts[1]) };
    } catch {
      return { page: "fleet" };
    }
  }
  if (parts[0] === "data") {
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
export const dataLink = (bucket: string, prefix: string): string =>
  `#/data?${new URLSearchParams({ bucket, prefix }).toString()}`;
