// The page of `weir serve` in a browser, while a real PostgreSQL is well, is lost, and comes back.

import { join } from "node:path";
import { barriers, check, contrasts, equal, eventually, play, reads, sticksOut, textOf } from "./pagetest.mjs";

const pool = name => ".pool:has(h3:text-is('" + name + "'))";
const state = name => pool(name) + " .word";
const why = name => pool(name) + " p:last-child";
const cells = page => page.locator("#heat rect").count();
const rowsOf = (page, table) => page.locator("#" + table + " tbody tr");

// Of the whole page, or of what the window shows.
async function photograph({ page, folder }, name, schemes = ["dark", "light"], fullPage = true) {
    for (const scheme of schemes) { // the light one stays
        await page.emulateMedia({ colorScheme: scheme });
        await page.screenshot({ path: join(folder, name + "_" + scheme + ".png"), fullPage });
    }
}

async function readableInBothColours(page) {
    for (const scheme of ["dark", "light"]) {
        await page.emulateMedia({ colorScheme: scheme });
        const { poor, measured } = await contrasts(page);
        equal(poor, [], scheme);
        check(measured > 60, "only", measured, "texts");
        equal(await barriers(page), [], scheme);
    }
}

// Two readings of a countdown that are some seconds apart.
async function countsDown(page, selector, pattern) {
    const first = Number((await reads(page, selector, pattern))[1]), began = Date.now();
    const second = await eventually(async () => {
        const found = pattern.exec(await textOf(page, selector));
        return found && Number(found[1]) <= first - 2 && found;
    }, "a countdown from " + first);
    const passed = (Date.now() - began) / 1000, fell = first - Number(second[1]);
    check(Math.abs(passed - fell) < 1.6, "it fell by", fell, "in", passed, "s");
}

const cases = [];
const test = (name, body) => cases.push([name, body]);

// ---- all is well ----------------------------------------------------------------------------------------------------

test("a healthy service is told of in figures", async ({ page }) => {
    await reads(page, "#health", /^● healthy$/);
    await reads(page, "#name", /^api$/);
    await reads(page, state("service@primary"), /^● closed$/);
    await reads(page, "#tiles", /calls[1-9]\d*(\.\d)?\/sended well100\.00 %/);
    await reads(page, "#tiles", /p50, last 10 s[\d.]+ msp99, last 10 s[\d.]+ ms/);
    await reads(page, "#tiles", /refused0\.0\/sretries0\.0\/s/);
    equal(await page.title(), "weir api");
    await reads(page, "#age", /^data age [01] s, streamed$/);
});

test("the figures come over the stream and nothing else is asked for", async ({ page, seen }) => {
    await eventually(async () => await page.evaluate("seen.length") > 3, "figures of four seconds");
    equal([...seen.paths].sort(), ["/", "/events"]);
});

test("the heat map gets cells, and says the same in words and as a table", async ({ page }) => {
    await eventually(async () => await cells(page) > 12, "cells");
    const words = await page.locator("#heat").getAttribute("aria-label");
    check(/of all pools: in the last 10 s half within [\d.]+ ms, 99 % within [\d.]+ ms/.test(words), words);
    await page.getByText("As a table").click();
    await eventually(async () => await page.locator("#figures tbody tr").count() > 0, "rows");
    check(/^0–10 s \d/.test((await page.locator("#figures tbody tr").first().innerText()).replace(/\s+/g, " ")), "the first row");
    await page.getByText("As a table").click();
});

test("the heat map shows one pool when asked to, and what is under the pointer", async ({ page }) => {
    const chosen = page.getByRole("combobox", { name: "Pool" });
    await chosen.selectOption("reports@replica");
    const one = await eventually(() => cells(page), "cells of one pool");
    await chosen.selectOption("");
    await eventually(async () => await cells(page) > one, "more cells of all pools");
    const box = await page.locator("#heat").boundingBox();
    await eventually(async () => {
        for (let y = 0.1; y < 1; y += 0.04) {
            await page.mouse.move(box.x + box.width * 0.985, box.y + box.height * y);
            const text = await textOf(page, "#heat-at");
            if (/^[12] s ago: [1-9]\d* calls? [\d.]+ m?s to [\d.]+ m?s$/.test(text)) return true;
        }
    }, "the text of a cell");
    await page.mouse.move(0, 0);
    equal(await textOf(page, "#heat-at"), "");
});

test("quantiles of a difference are the engine's own, within a bucket", async ({ page }) => {
    const quantiles = async name => page.evaluate(name => {
        const none = { below: edges.map(() => 0), counted: 0, atOnce: 0 }, now = seen[seen.length - 1];
        const counts = between({ pools: { [name]: none } }, now, name), own = shown.pools.find(p => p.pool === name).duration_ms;
        return [[quantile(counts, 0.5), own.p50], [quantile(counts, 0.9), own.p90]];
    }, name);
    const slow = await quantiles("service@primary"), fast = await quantiles("reports@replica");
    for (const [ours, own] of [...slow, ...fast]) check(Math.abs(Math.log(ours / own)) < Math.log(1.3), ours, "is not", own);
    check(slow[0][0] > 2 * fast[0][0], slow, fast);
});

test("what comes from a caller stays text", async ({ page }) => {
    const row = rowsOf(page, "labels").filter({ hasText: "onerror" });
    equal(await row.locator("td").first().textContent(), '<img src="x" onerror="boom()">');
    await eventually(async () => await rowsOf(page, "calls").filter({ hasText: "<img" }).count() > 0, "its calls");
    equal(await page.locator("img").count(), 0);
});

test("labels are sorted by their columns, from the keyboard too", async ({ page }) => {
    const column = async n => (await rowsOf(page, "labels").locator("td:nth-child(" + n + ")").allTextContents());
    const sorted = async name => page.getByRole("columnheader", { name }).getAttribute("aria-sort");
    await page.getByRole("button", { name: "label", exact: true }).click();
    const rising = await column(1);
    equal(rising, [...rising].sort());
    equal(rising.length, 3);
    equal(await sorted("label"), "ascending");
    await page.keyboard.press("Enter");
    equal(await column(1), [...rising].reverse());
    equal(await sorted("label"), "descending");
    await page.getByRole("button", { name: "p99", exact: true }).focus();
    await page.keyboard.press("Space");
    const p99 = (await column(7)).map(parseFloat);
    equal(await sorted("p99"), "descending");
    equal(p99, [...p99].sort((a, b) => b - a));
});

test("a call opens its timeline by the keyboard, Escape closes it and gives the focus back", async ({ page }) => {
    const button = rowsOf(page, "calls").first().getByRole("button");
    await button.focus();
    const context = await button.textContent();
    await page.locator("#held").waitFor();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: context });
    await dialog.waitFor();
    const text = await dialog.innerText();
    check(/ended\s+ok\s+outcome\s+committed\s/.test(text), text);
    check(/Attempt 1 · at \+.* · waited .* · on the server .* · backend \d+/.test(text), text);
    check(await dialog.locator(".lane span").count() > 0, "a bar");
    equal(await dialog.evaluate(e => e.contains(document.activeElement)), true, "the focus is inside");
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    equal(await page.evaluate(() => document.activeElement.textContent), context, "the focus came back");
    await page.evaluate(() => document.activeElement.blur());
    await page.locator("#held").waitFor({ state: "hidden" });
});

test("whoever sees no screen finds regions, tables, pictures and controls by name", async ({ page }) => {
    const wanted = [["button", "Pause"], ["img", /^Calls a second, the last two minutes: now \d/], ["img", /^How long calls took/],
                    ["table", /^Since the counters began/], ["table", /^Calls that have ended/], ["table", /^Newest first/],
                    ["region", "Labels"], ["region", "Calls"], ["region", "Events"], ["heading", "Latency"], ["heading", "service@primary"],
                    ["combobox", "Pool"], ["combobox", "Show"], ["combobox", "Kind"], ["img", /^used \d+, idle \d+ of 6$/]];
    for (const [role, name] of wanted) check(await page.getByRole(role, { name }).count() > 0, role, String(name));
    equal(await page.getByRole("searchbox").count(), 2);
    equal(await page.getByRole("main").count(), 1);
});

test("it can be read in light and dark", async ({ page }) => readableInBothColours(page));

test("on a phone nothing sticks out", async ({ page }) => {
    await page.setViewportSize({ width: 360, height: 740 });
    equal(await sticksOut(page), []);
    await rowsOf(page, "calls").first().getByRole("button").click();
    equal(await sticksOut(page), [], "with a timeline");
    await page.keyboard.press("Escape");
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement.blur());
});

test("pictures of good times are kept", async on => {
    await photograph(on, "healthy_phone", ["light"]);
    await on.page.setViewportSize({ width: 1200, height: 900 });
    await photograph(on, "healthy");
});

// ---- what operators do, and a server that hangs -----------------------------------------------------------------

test("a forced breaker, a paused and a smaller pool are announced, with the time that is left", async on => {
    const { page, stage } = on;
    equal(await page.locator("#steered").isVisible(), false);
    await stage.do("force reports@primary open 50");
    await stage.do("pause service@replica");
    await stage.do("resize service@primary 5");
    await reads(page, "#steered", /Breaker of reports@primary: forced open for another \d+ s\./);
    await reads(page, "#steered", /Pool service@replica is paused: calls are refused/);
    await reads(page, "#steered", /Pool service@primary may hold 5 connections instead of 6\./);
    await reads(page, state("reports@primary"), /^■ forced open$/);
    await reads(page, state("service@replica"), /^❚❚ paused, ● closed$/);
    await reads(page, "#told", /Breaker of reports@primary is forced open|Pool service@replica is paused/);
    await countsDown(page, why("reports@primary"), /As an operator said, for another (\d+) s\./);
    await photograph(on, "steered", ["light"]);
    await stage.do("reset reports@primary");
    await stage.do("resume service@replica");
    await stage.do("resize service@primary");
    await page.locator("#steered").waitFor({ state: "hidden" });
});

test("data that is old is greyed and said to be old", async on => {
    const { page, stage } = on;
    await stage.do("freeze");
    await reads(page, "#stale", /^stale: no data for \d+ s/);
    equal(await page.evaluate(() => document.body.classList.contains("old")), true);
    equal((await barriers(page)), []);
    await reads(page, "#told", /The data is stale/);
    await photograph(on, "stale", ["light"]);
    await stage.do("thaw");
    await page.locator("#stale").waitFor({ state: "hidden" });
    equal(await page.evaluate(() => document.body.classList.contains("old")), false);
});

// ---- an outage --------------------------------------------------------------------------------------------------

test("an outage shows as an open breaker with its evidence and the time until it lets calls in", async ({ page, stage }) => {
    await stage.do("stop");
    await reads(page, state("service@primary"), /^■ open$/);
    await reads(page, why("service@primary"), /Why: failure rate [\d.]+ >= 0\.50 over \d+ calls/);
    await countsDown(page, why("service@primary"), /^Half-open in (\d+) s, or when a background probe succeeds, (the next within \d+ s|which is under way)\./);
    await reads(page, "#health", /^■ unhealthy$/);
    await reads(page, "#told", /Breaker of .* is open|Weir is unhealthy/);
    check((await page.title()).startsWith("■ unhealthy"), "the title");
    await reads(page, "#tiles", /refused[1-9]\d*(\.\d)?\/s/);
    equal(await page.locator("#strip .s-refused").count() > 0, true, "refusals on the strip");
});

test("the events of the outage can be found among the others", async ({ page }) => {
    await page.getByLabel("Kind").selectOption("breaker");
    const kinds = await rowsOf(page, "events").locator("td:nth-child(2)").allTextContents();
    check(kinds.length > 0 && kinds.every(kind => kind === "breaker"), kinds);
    await page.locator("#event-words").fill("SERVICE@primary");
    await reads(page, "#found", /^\d+ of \d+ events$/);
    const pools = await rowsOf(page, "events").locator("td:nth-child(3)").allTextContents();
    check(pools.length > 0 && pools.every(name => name === "service@primary"), pools);
    await page.locator("#event-words").fill("");
    await page.getByLabel("Kind").selectOption("");
});

test("the calls that did not end well can be shown alone, each with why", async ({ page }) => {
    await page.getByLabel("Show").selectOption("bad");
    const ends = await eventually(async () => {
        const texts = await rowsOf(page, "calls").locator("td:nth-child(4)").allTextContents();
        return texts.length > 0 && texts;
    }, "calls that failed");
    check(ends.every(end => end !== "ok"), ends);
    await page.getByLabel("Show").selectOption("all");
});

test("calls that failed are kept, and tell of each of their attempts", async on => {
    const { page } = on;
    await page.getByLabel("Show").selectOption("failed");
    const retried = rowsOf(page, "calls").filter({ has: page.locator("td:nth-child(5):text-is('3')") });
    await retried.first().getByRole("button").click();
    const dialog = page.getByRole("dialog"), text = await dialog.innerText();
    check(/attempts\s+3\s/.test(text), text);
    for (const n of [1, 2]) check(new RegExp("Attempt " + n + " · .* · then a pause of [\\d.]+ ms").test(text), text);
    check(/Attempt 3 · at \+[\d.]+ ms/.test(text), text);
    equal(await dialog.locator(".lane").count(), 3);
    equal(await barriers(page), []);
    await photograph(on, "timeline", ["light"], false);
    await page.getByRole("button", { name: "Close" }).click();
    await dialog.waitFor({ state: "hidden" });
    await page.getByLabel("Show").selectOption("slowest");
    const took = await rowsOf(page, "calls").locator("td:nth-child(6)").allTextContents();
    const numbers = took.map(text => parseFloat(text) * (text.endsWith(" ms") ? 1 : 1000));
    equal(numbers, [...numbers].sort((a, b) => b - a));
    await page.getByLabel("Show").selectOption("all");
    await page.mouse.move(0, 0);
    await page.evaluate(() => document.activeElement.blur());
});

test("an outage can be read in light and dark", async on => {
    await readableInBothColours(on.page);
    equal(await sticksOut(on.page), []);
    await photograph(on, "outage");
});

// ---- recovery ---------------------------------------------------------------------------------------------------

test("after the outage all is well again", async on => {
    const { page, stage } = on;
    await stage.do("start");
    await reads(page, state("service@primary"), /^● closed$/);
    await reads(page, "#health", /^● healthy$/);
    await reads(page, why("service@primary"), /Last change: .* Opened \d+ times?, turned away [\d ]+\./);
    await reads(page, "#events", /HALF_OPEN -> CLOSED: probes passed/);
    check(await page.locator("#strip .s-refused").count() > 0, "the refusals are still on the strip");
    await photograph(on, "recovery");
});

test("nothing was asked of anybody else, no policy was broken, nothing was complained of", async ({ page, seen }) => {
    equal(seen.elsewhere, []);
    equal(await page.evaluate(() => window.violations), []);
    equal(seen.complaints, []);
});

await play("weir", cases);
