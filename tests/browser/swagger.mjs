// Opens /docs in headless Chromium with no network but the server's own, and uses the page as a person
// does: tries POST /v1/quantize with the example that stands there, with a preset chosen in the form, and
// with a file of 256 x 512 numbers, whose answer is shown as JSON and saved as a file.
// usage: node swagger.mjs http://127.0.0.1:PORT CHROMIUM [SCREENSHOT_DIR]
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [base, executablePath, folder = mkdtempSync(join(tmpdir(), "quantd-browser-"))] =
  process.argv.slice(2);
const PATHS = ["/v1/quantize", "/v1/dequantize", "/v1/compare", "/v1/inspect"];

// 256 x 512 numbers in F32 as npy.
function npy() {
  const dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (256, 512), }";
  const header = `${dict.padEnd(117)}\n`;
  const elements = Float32Array.from({ length: 256 * 512 }, (_, i) => Math.sin(i) * (1 + (i % 7)));
  return Buffer.concat([
    Buffer.from("\x93NUMPY\x01\x00", "latin1"),
    Buffer.from([header.length, 0]),
    Buffer.from(header),
    Buffer.from(elements.buffer),
  ]);
}

// Opens an operation to be tried.
async function open(page, path) {
  const block = page.locator(".opblock-post", { has: page.locator(`[data-path="${path}"]`) });
  await block.locator(".opblock-summary-control, .opblock-summary").first().click();
  // Opening loads the operation once more and may undo an early click.
  await page.waitForLoadState("networkidle");
  const tryOut = block.locator("button.try-out__btn");
  await tryOut.waitFor();
  for (let i = 0; i < 5 && !/cancel/i.test(await tryOut.innerText()); i += 1) {
    await tryOut.click();
    await page.waitForTimeout(500);
  }
  return block;
}

// Sends what stands there; the answer, once the page shows it.
async function execute(page, block, path) {
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.url().startsWith(`${base}${path}`)),
    block.locator("button.execute").click(),
  ]);
  if (answer.status() !== 200) assert.fail(await answer.text());
  const live = block.locator(".live-responses-table .response-col_status").last();
  await live.waitFor();
  assert.match(await live.innerText(), /200/);
  return answer;
}

async function tryJson(page, block) {
  const body = block.locator("textarea.body-param__text");
  await body.waitFor({ timeout: 15_000 });
  assert.ok(JSON.parse(await body.inputValue()).data, "no example is filled in");
  const answer = await (await execute(page, block, "/v1/quantize")).json();
  assert.ok(answer.codes, "no codes in the answer");
  await block.locator(".live-responses-table").scrollIntoViewIfNeeded();
  await page.screenshot({ path: join(folder, "tried.png") });

  const preset = block.locator('tr[data-param-name="preset"] select');
  await preset.selectOption("int4");
  const chosen = await (await execute(page, block, "/v1/quantize")).json();
  assert.equal(chosen.scheme.bits, 4, "the preset of the form does not count");
  await preset.selectOption("");

  const examples = block.locator(".examples-select-element");
  assert.ok((await examples.first().locator("option").count()) > 2, "one example only");
}

async function tryFile(page, block) {
  const file = join(folder, "w.npy");
  writeFileSync(file, npy());
  await block.locator(".opblock-section-request-body select").first().selectOption("application/x-npy");
  await block.locator('.opblock-section-request-body input[type="file"]').setInputFiles(file);
  await execute(page, block, "/v1/quantize");
  // It would stand for minutes if it coloured all these numbers.
  const shown = await block.locator(".live-responses-table pre").first().textContent();
  assert.equal(JSON.parse(shown).codes.length, 256, "the page does not show the answer");

  const accept = block.locator(".responses-wrapper select.content-type", {
    has: page.locator('option[value="application/x-safetensors"]'),
  });
  for (const [type, name] of [
    ["application/x-safetensors", "quantize.safetensors"],
    ["application/x-npy", "quantize.npy"],
  ]) {
    await accept.selectOption(type);
    await execute(page, block, "/v1/quantize");
    const link = block.locator(".live-responses-table a[download]");
    await link.waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
    assert.equal(download.suggestedFilename(), name);
    const saved = join(folder, name);
    await download.saveAs(saved);
    const expected = await fetch(`${base}/v1/quantize`, {
      method: "POST",
      headers: { "content-type": "application/x-npy", accept: type },
      body: npy(),
    });
    const bytes = Buffer.from(await expected.arrayBuffer());
    assert.ok(readFileSync(saved).equals(bytes), `${name} is not what the server answered`);
  }
}

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
let page;
try {
  page = await browser.newPage({ viewport: { width: 1280, height: 1600 }, acceptDownloads: true });
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
  await page.locator(".opblock").first().waitFor();
  assert.equal(await page.title(), "quantd API");
  for (const path of PATHS) {
    const block = page.locator(`.opblock [data-path="${path}"]`);
    assert.equal(await block.count(), 1, `${path} is not listed`);
  }
  const first = page.locator(".opblock [data-path]").first();
  assert.equal(await first.getAttribute("data-path"), "/v1/quantize", "what is first");
  assert.equal(await page.locator(".models .model-container:visible").count(), 0, "schemas stand open");
  await page.screenshot({ path: join(folder, "list.png") });

  const block = await open(page, "/v1/quantize");
  await tryJson(page, block);
  await tryFile(page, block);
  assert.deepEqual(foreign, [], "the page asked for something elsewhere");
  assert.deepEqual(errors, []);
  const wrong = page.locator(".errors-wrapper");
  assert.equal(await wrong.count(), 0, "the page shows errors of the document");
  console.log(`swagger: ${PATHS.length} operations listed, quantize tried; pictures in ${folder}`);
} catch (error) {
  await page?.screenshot({ path: join(folder, "failed.png"), fullPage: true }).catch(() => {});
  throw error;
} finally {
  await browser.close();
}
