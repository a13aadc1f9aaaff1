// The page behind nginx, which has no stream: it asks once a second and shows the same.

import { join } from "node:path";
import { check, equal, eventually, play, reads } from "./pagetest.mjs";

const cases = [];
const test = (name, body) => cases.push([name, body]);

test("without a stream the page asks once a second", async ({ page, seen }) => {
    await reads(page, "#age", /^data age [01] s, asked for each second$/);
    await reads(page, "#about", /^2 workers · up /);
    check(seen.paths.has("/weir/stats.json") && seen.paths.has("/weir/calls.json") && seen.paths.has("/weir/events.json"), "the paths");
});

test("calls come onto the heat map and into the list", async ({ page, stage }) => {
    for (let i = 0; i < 5; i++) await stage.do("call");
    await eventually(async () => await page.locator("#heat rect").count() > 0, "cells");
    await eventually(async () => await page.locator("#calls tbody tr").count() >= 5, "calls");
    await reads(page, "#tiles", /p50, last 10 s[\d.]+ ms/);
});

test("a pool that is not asked for anything shows no latency", async ({ page }) => {
    await page.getByRole("combobox", { name: "Pool" }).selectOption("anon@primary");
    equal(await page.locator("#heat rect").count(), 0);
    check(/half within –, 99 % within –/.test(await page.locator("#heat").getAttribute("aria-label")), "its words");
});

test("paused, the page asks nothing", async ({ page }) => {
    const pause = page.getByRole("button", { name: "Pause" });
    await pause.click();
    equal(await pause.getAttribute("aria-pressed"), "true");
    await reads(page, "#age", /, paused$/);
    const asked = [];
    page.on("request", request => asked.push(request.url()));
    await reads(page, "#age", /^data age [2-9] s, paused$/);
    equal(asked, []);
    await pause.click();
    await reads(page, "#age", /^data age [01] s, asked/);
});

test("only the missing stream is complained of, and that once", async ({ page, seen, folder }) => {
    equal(seen.elsewhere, []);
    equal(await page.evaluate(() => window.violations), []);
    equal(seen.complaints.length, 1);
    check(seen.complaints[0].includes("404"), seen.complaints);
    await page.screenshot({ path: join(folder, "nginx.png"), fullPage: true });
});

await play("nginx", cases);
