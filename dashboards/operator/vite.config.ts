import preact from "@preact/preset-vite";
import { defineConfig } from "vite";

// The cloud's content security policy allows files of its own and nothing inline.
export default defineConfig({
  plugins: [preact()],
  build: { assetsInlineLimit: 0, modulePreload: false, target: "es2022", emptyOutDir: true },
});
