// What the tests of the page share: cases as TAP, the stage with its servers, a headless browser that watches what the page must
// not do, and measures of what it shows.

import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const build = process.env.WEIR_BUILD_DIR;
const here = dirname(fileURLToPath(import.meta.url));
const PATIENCE_MS = 15000; // until something that has to happen counts as not happening

function need(name) {
    try {
        return createRequire(join(build, "node", "package.json")).resolve(name);
    } catch {
        console.log("Bail out! " + name + " is not in " + join(build, "node") + "; tests/run.sh installs it");
        process.exit(1);
    }
}

const { chromium } = createRequire(import.meta.url)(need("playwright-core"));
const axe = readFileSync(need("axe-core/axe.min.js"), "utf8");

export function check(condition, ...words) {
    if (!condition) throw new Error(words.map(word => typeof word === "string" ? word : JSON.stringify(word)).join(" "));
}

export function equal(found, wanted, what) {
    const [a, b] = [found, wanted].map(value => JSON.stringify(value));
    if (a !== b) throw new Error((what ? what + ": " : "") + a + ", not " + b);
}

// Until what() gives something, which is returned.
export async function eventually(what, told) {
    const till = Date.now() + PATIENCE_MS;
    for (;;) {
        const result = await what();
        if (result) return result;
        if (Date.now() > till) throw new Error("in vain: " + (told || what));
        await new Promise(done => setTimeout(done, 50));
    }
}

// ---- the stage ----------------------------------------------------------------------------------------------------

async function setStage(kind) {
    const child = spawn("lua5.4", [join(here, "stage.lua"), kind], { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const ended = new Promise(done => child.once("exit", done));
    const first = await lines.next();
    if (first.done) throw new Error("the stage did not come up");
    return {
        url: first.value,
        async do(command) {
            child.stdin.write(command + "\n");
            const answer = await lines.next();
            if (answer.value !== "done") throw new Error(command + ": " + (answer.value || "the stage fell"));
        },
        async end() {
            child.stdin.end();
            return ended;
        },
    };
}

// ---- the page -----------------------------------------------------------------------------------------------------

// What it must not do: ask elsewhere, break its policy, or complain.
function watch(page, seen, origin) {
    page.on("request", request => {
        const url = new URL(request.url());
        if (url.protocol === "data:") return; // the page's own icon
        if (url.origin !== origin) seen.elsewhere.push(url.href);
        seen.paths.add(url.pathname);
    });
    page.on("console", message => {
        if (message.type() === "error" || message.type() === "warning") seen.complaints.push(message.text());
    });
    page.on("pageerror", error => seen.complaints.push(error.stack));
    page.on("dialog", dialog => {
        seen.complaints.push("a dialog: " + dialog.message());
        dialog.dismiss();
    });
}

async function openPage(browser, url) {
    const seen = { elsewhere: [], complaints: [], paths: new Set() };
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, colorScheme: "light" });
    page.setDefaultTimeout(PATIENCE_MS);
    await page.addInitScript(() => {
        window.violations = [];
        document.addEventListener("securitypolicyviolation", e => window.violations.push(e.violatedDirective + " " + e.blockedURI));
    });
    watch(page, seen, new URL(url).origin);
    await page.goto(url, { waitUntil: "domcontentloaded" });
    return { page, seen };
}

export const textOf = async (page, selector) => (await page.locator(selector).first().textContent()).replace(/\s+/g, " ").trim();

// Waits until the element's text fits, and returns the match.
export const reads = (page, selector, pattern) =>
    eventually(async () => pattern.exec(await textOf(page, selector)), selector + " " + pattern);

// Texts whose contrast with what is behind them is below 4.5, as WCAG counts it; and how many texts were measured.
export const contrasts = page => page.evaluate(() => {
    const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const poor = [];
    let measured = 0;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
        if (!text || element.closest("script, option") || !element.checkVisibility() || element.closest(".hidden")) continue;
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        measured++;
        if (ratio < 4.5) poor.push(ratio.toFixed(2) + " " + text.slice(0, 40));
    }
    return { poor, measured };
});

// What a checker of accessibility finds, as sentences.
export async function barriers(page) {
    await page.evaluate(axe);
    return page.evaluate(async () => {
        const found = await window.axe.run(document, { resultTypes: ["violations"] });
        return found.violations.map(v => v.id + ": " + v.help + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 120)).join(" | "));
    });
}

// Whether anything sticks out to the right of the window, and what.
export const sticksOut = page => page.evaluate(() => {
    const root = document.documentElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    return [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > root.clientWidth + 1)
        .map(e => e.tagName + " " + e.id + "." + e.getAttribute("class")).slice(0, 5).concat("width " + root.scrollWidth);
});

// ---- cases ----------------------------------------------------------------------------------------------------------

async function runCase(number, [name, body], on) {
    try {
        await body(on);
        console.log("ok " + number + " " + name);
        return true;
    } catch (error) {
        const shot = join(on.folder, "failed_" + number + ".png");
        await on.page.screenshot({ path: shot, fullPage: true }).catch(() => {});
        console.log("not ok " + number + " " + name + "\n# " + String(error.stack).replace(/\n/g, "\n# ") + "\n# seen: " + shot);
        return false;
    }
}

// Sets the stage, opens the page and lets the cases follow each other on it: each begins where the one before it ended.
export async function play(kind, cases) {
    const stage = await setStage(kind);
    const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", chromiumSandbox: false });
    const folder = join(build, "page");
    let good = true;
    mkdirSync(folder, { recursive: true });
    try {
        const on = { stage, browser, folder, ...await openPage(browser, stage.url) };
        let number = 0;
        console.log("1.." + cases.length);
        for (const each of cases) good = await runCase(++number, each, on) && good;
    } finally {
        await browser.close();
        await stage.end();
    }
    process.exitCode = good ? 0 : 1;
}
