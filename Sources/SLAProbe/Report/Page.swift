import Foundation

/// The shell of our pages: one file, nothing from outside, light and dark, readable on a phone and
/// in print.
enum Page {
    static func escape(_ text: String) -> String {
        var out = ""
        for character in text {
            switch character {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "\"": out += "&quot;"
            default: out.append(character)
            }
        }
        return out
    }

    static func html(title: String, subtitle: String, body: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(escape(title))</title>
        <style>\(style)</style>
        </head>
        <body>
        <header><h1>\(escape(title))</h1><p class="sub">\(subtitle)</p></header>
        <main>
        \(body)
        </main>
        </body>
        </html>

        """
    }

    struct Tile {
        var label: String
        var value: String
        var note: String
        /// CSS class of the accent: read, write, bad, good or plain.
        var accent: String
    }

    static func tiles(_ tiles: [Tile]) -> String {
        "<section class=\"tiles\">"
            + tiles.map {
                """
                <div class="tile \($0.accent)"><div class="label">\(escape($0.label))</div>\
                <div class="value">\(escape($0.value))</div><div class="note">\(escape($0.note))</div></div>
                """
            }.joined() + "</section>"
    }

    /// `numbers`: columns that are aligned to the right.
    static func table(_ head: [String], _ rows: [[String]], numbers: Set<Int>) -> String {
        func cell(_ tag: String, _ index: Int, _ text: String) -> String {
            "<\(tag)\(numbers.contains(index) ? " class=\"n\"" : "")>\(escape(text))</\(tag)>"
        }
        func line(_ tag: String, _ cells: [String]) -> String {
            "<tr>" + cells.enumerated().map { cell(tag, $0, $1) }.joined() + "</tr>"
        }
        return "<div class=\"scroll\"><table><thead>" + line("th", head) + "</thead><tbody>"
            + rows.map { line("td", $0) }.joined() + "</tbody></table></div>"
    }

    static func section(_ title: String, _ body: String, note: String = "") -> String {
        "<section><h2>\(escape(title))</h2>"
            + (note.isEmpty ? "" : "<p class=\"note\">\(escape(note))</p>") + body + "</section>"
    }

    private static let style = """
        :root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--ink:#1c2024;--soft:#60666d;--line:#dfe2e6;\
        --grid:#eceef0;--read:#1f6feb;--write:#c2620a;--bad:#c62828;--good:#1a7f43}
        @media (prefers-color-scheme:dark){:root{--bg:#121518;--card:#1a1e22;--ink:#e6e8ea;--soft:#9aa2aa;\
        --line:#30363c;--grid:#262b30;--read:#6cabff;--write:#f0a04b;--bad:#ff7b72;--good:#56d07d}}
        *{box-sizing:border-box}
        body{margin:0;background:var(--bg);color:var(--ink);\
        font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
        header,main{max-width:1000px;margin:0 auto;padding:0 20px}
        header{padding-top:28px}
        h1{font-size:24px;margin:0;letter-spacing:-.01em}
        h2{font-size:17px;margin:0 0 4px}
        .sub,.note{color:var(--soft);margin:2px 0 8px}
        .note{font-size:13px}
        section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px;margin:16px 0}
        section.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(165px,1fr));gap:12px;padding:0;\
        border:0;background:none}
        .tile{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--soft);\
        border-radius:10px;padding:12px 14px}
        .tile.read{border-top-color:var(--read)}.tile.write{border-top-color:var(--write)}
        .tile.bad{border-top-color:var(--bad)}.tile.good{border-top-color:var(--good)}
        .tile.bad .value{color:var(--bad)}
        .label{font-size:13px;color:var(--soft)}
        .value{font-size:26px;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
        .scroll{overflow-x:auto}
        table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
        th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);white-space:nowrap}
        th{color:var(--soft);font-weight:550;font-size:13px}
        .n{text-align:right}
        tr:last-child td{border-bottom:0}
        svg{display:block;width:100%;min-width:620px;height:auto}
        svg text{fill:var(--soft);font:12px system-ui,sans-serif}
        svg .axis{stroke:var(--line)}svg .grid{stroke:var(--grid)}
        svg .read{stroke:var(--read)}svg .write{stroke:var(--write)}svg .bad{stroke:var(--bad)}
        svg .f-read{fill:var(--read)}svg .f-write{fill:var(--write)}svg .f-bad{fill:var(--bad)}
        svg .f-good{fill:var(--good)}svg .f-grid{fill:var(--grid)}svg .f-soft{fill:var(--soft)}
        svg .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
        svg .thin{stroke-width:1.2;opacity:.75}svg .dash{stroke-dasharray:4 3}
        svg .strong{fill:var(--ink)}
        ul.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;padding:0;margin:4px 0 6px;font-size:13px;\
        color:var(--soft)}
        .key{display:inline-block;width:18px;height:0;border-top:3px solid;vertical-align:middle;margin-right:6px}
        .key.read{border-color:var(--read)}.key.write{border-color:var(--write)}.key.bad{border-color:var(--bad)}
        .key.dashed{border-top-style:dashed;border-top-width:2px}
        .verdict{font-weight:700}.PASS{color:var(--good)}.FAIL{color:var(--bad)}
        @media (max-width:560px){header,main{padding-left:12px;padding-right:12px}section{padding:12px}\
        .value{font-size:22px}}
        @media print{:root{--bg:#fff;--card:#fff;--ink:#000;--soft:#444;--line:#bbb;--grid:#e4e4e4;\
        --read:#1f6feb;--write:#c2620a;--bad:#c62828;--good:#1a7f43}body{font-size:11pt}section{break-inside:avoid;\
        border-color:#bbb}svg{min-width:0}header,main{max-width:none}}
        """
}

/// Numbers and times as people read them; no locale, so that pages can be compared.
enum Words {
    static func milliseconds(_ value: Double) -> String {
        if value >= 10_000 { return fixed(value / 1000, 1) + " s" }
        if value >= 100 { return fixed(value, 0) + " ms" }
        if value >= 10 { return fixed(value, 1) + " ms" }
        return fixed(value, 2) + " ms"
    }

    static func seconds(_ value: Double) -> String {
        if value < 1 { return fixed(value * 1000, 0) + " ms" }
        if value < 120 { return fixed(value, 1) + " s" }
        if value < 7200 { return fixed(value / 60, 1) + " min" }
        return fixed(value / 3600, 1) + " h"
    }

    static func fixed(_ value: Double, _ decimals: Int) -> String {
        String(format: "%.\(decimals)f", value)
    }

    static func count(_ value: UInt64) -> String {
        var digits = String(value)
        var out = ""
        while digits.count > 3 {
            out = "\u{202F}" + digits.suffix(3) + out
            digits.removeLast(3)
        }
        return digits + out
    }

    /// UTC, as ISO 8601 writes it with a space.
    static func time(_ microseconds: UInt64, withDate: Bool = true, withSeconds: Bool = true)
        -> String
    {
        let seconds = Int(microseconds / 1_000_000)
        var time = tm()
        var value = time_t(seconds)
        gmtime_r(&value, &time)
        func two(_ n: Int32) -> String { n < 10 ? "0\(n)" : "\(n)" }
        let clock =
            two(time.tm_hour) + ":" + two(time.tm_min) + (withSeconds ? ":" + two(time.tm_sec) : "")
        guard withDate else { return clock }
        return "\(time.tm_year + 1900)-\(two(time.tm_mon + 1))-\(two(time.tm_mday)) \(clock)"
    }
}
