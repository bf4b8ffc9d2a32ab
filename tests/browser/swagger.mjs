// Opens /docs in headless Chromium with no network but the server's own, and
// tries POST /v1/quantize with the example that stands there.
// usage: node swagger.mjs http://127.0.0.1:PORT CHROMIUM [SCREENSHOT_DIR]
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, executablePath, folder = mkdtempSync(join(tmpdir(), "quantd-browser-"))] =
  process.argv.slice(2);
const PATHS = ["/v1/quantize", "/v1/dequantize", "/v1/compare", "/v1/inspect"];

const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
  const foreign = [];
  const errors = [];
  // Whatever the page wants from anyone else is refused and remembered.
  await page.route("**/*", (route) => {
    const url = route.request().url();
    if (url.startsWith(base) || url.startsWith("data:")) return route.continue();
    foreign.push(url);
    return route.abort();
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`${base}/docs`, { waitUntil: "networkidle" });
  await page.waitForSelector(".opblock", { timeout: 30_000 });
  for (const path of PATHS) {
    const block = page.locator(".opblock-post", { has: page.locator(`[data-path="${path}"]`) });
    assert.equal(await block.count(), 1, `${path} is not listed`);
  }
  await page.screenshot({ path: join(folder, "list.png") });

  const block = page.locator(".opblock-post", {
    has: page.locator('[data-path="/v1/quantize"]'),
  });
  await block.locator(".opblock-summary-control, .opblock-summary").first().click();
  // Opening loads the operation once more and may undo an early click.
  await page.waitForLoadState("networkidle");
  const tryOut = block.locator("button.try-out__btn");
  await tryOut.waitFor();
  for (let i = 0; i < 5 && !/cancel/i.test(await tryOut.innerText()); i += 1) {
    await tryOut.click();
    await page.waitForTimeout(500);
  }
  const body = block.locator("textarea.body-param__text");
  await body.waitFor({ timeout: 15_000 }).catch(async (error) => {
    await page.screenshot({ path: join(folder, "failed.png"), fullPage: true });
    throw error;
  });
  assert.ok(JSON.parse(await body.inputValue()).data, "no example is filled in");
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.url().startsWith(`${base}/v1/quantize`)),
    block.locator("button.execute").click(),
  ]);
  assert.equal(answer.status(), 200, await answer.text());
  const live = block.locator(".live-responses-table .response-col_status").last();
  await live.waitFor();
  assert.match(await live.innerText(), /200/);
  assert.ok((await answer.json()).codes, "no codes in the answer");
  await block.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await page.screenshot({ path: join(folder, "tried.png") });
  assert.deepEqual(foreign, [], "the page asked for something elsewhere");
  assert.deepEqual(errors, []);
  const wrong = page.locator(".errors-wrapper");
  assert.equal(await wrong.count(), 0, "the page shows errors of the document");
  console.log(`swagger: ${PATHS.length} operations listed, quantize tried; pictures in ${folder}`);
} finally {
  await browser.close();
}
