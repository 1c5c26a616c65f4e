// An OpenID Connect provider for the tests: panva's oidc-provider, with people and keys of its own.
// `node provider.mjs MODULES REDIRECT`: says its issuer in the first line, and ends with its input.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, redirect] = process.argv.slice(2);
const here = createRequire(join(modules, "package.json"));
const { Provider } = await import(pathToFileURL(here.resolve("oidc-provider")).href);

// Its advice is not the first line, nor anything that the test reads.
console.info = () => {};
console.warn = () => {};

const PEOPLE = {
  "u-ada": { preferred_username: "ada", groups: ["staff", "fleet-admins"] },
  "u-carl": { preferred_username: "carl", groups: ["acme"] },
  "u-eve": { preferred_username: "eve", groups: ["strangers"] },
  "u-twin": { preferred_username: "admin", groups: ["fleet-admins"] },
};

let round = 0;

/** The provider with a new key: of another kind each time. */
function start(issuer) {
  round += 1;
  const [pair, alg] =
    round % 2 === 1
      ? [generateKeyPairSync("rsa", { modulusLength: 2048 }), "RS256"]
      : [generateKeyPairSync("ec", { namedCurve: "P-256" }), "ES256"];
  const key = { ...pair.privateKey.export({ format: "jwk" }), kid: `key-${round}`, alg, use: "sig" };
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "longhaul",
        client_secret: "a secret / with + signs",
        redirect_uris: [redirect],
        response_types: ["code"],
        grant_types: ["authorization_code"],
        id_token_signed_response_alg: alg,
      },
    ],
    jwks: { keys: [key] },
    cookies: { keys: ["of a test"] },
    scopes: ["openid", "profile"],
    claims: { openid: ["sub", "groups", "preferred_username"] },
    ttl: { Interaction: 600, Session: 600, Grant: 600, IdToken: 600, AccessToken: 600 },
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false } },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...PEOPLE[id] }) }),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile email");
      await grant.save();
      return grant;
    },
  });
  return { provider, callback: provider.callback() };
}

let now;
const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "POST" && url.pathname === "/turn-keys") {
    now = start(issuer);
    response.end();
  } else if (request.method === "POST" && url.pathname === "/groups") {
    const groups = url.searchParams.get("groups").split(",");
    PEOPLE[url.searchParams.get("who")] = { preferred_username: url.searchParams.get("name"), groups };
    response.end();
  } else if (url.pathname.startsWith("/interaction/")) {
    // Whoever the browser says that it is: this is no test of passwords.
    const { params } = await now.provider.interactionDetails(request, response);
    const result =
      params.login_hint in PEOPLE
        ? { login: { accountId: params.login_hint } }
        : { error: "access_denied", error_description: "nobody" };
    await now.provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  } else {
    await now.callback(request, response);
  }
});
let issuer;
server.listen(0, "127.0.0.1", () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  now = start(issuer);
  console.log(issuer);
});
process.stdin.resume().on("end", () => process.exit(0));
