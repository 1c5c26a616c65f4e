// Takes over what has changed every two seconds; what has not stays untouched, so that a screen
// reader hears news only.
const now = document.getElementById("now");
let shown = null;
async function look() {
  try {
    const answer = await fetch("/now", { cache: "no-store" });
    if (answer.ok) {
      const text = await answer.text();
      if (shown !== text) {
        const fresh = new DOMParser().parseFromString(`<main>${text}</main>`, "text/html").body.firstChild;
        [...fresh.children].forEach((section, at) => {
          const old = now.children[at];
          if (old && old.innerHTML !== section.innerHTML) old.replaceChildren(...section.childNodes);
        });
        shown = text;
      }
      document.title = document.title.replace(/ \(not answering\)$/, "");
    }
  } catch {
    if (!document.title.endsWith("(not answering)")) document.title += " (not answering)";
  }
  setTimeout(look, 2000);
}
setTimeout(look, 2000);
