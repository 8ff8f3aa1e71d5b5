import Foundation

package struct ReportOptions: Sendable {
    package enum Format: String, Sendable, CaseIterable { case html, json, csv }
    /// Directories of `polder probe --out`; several are merged.
    package var directories: [String]
    /// Where the report goes; the first directory if not given.
    package var out: String?
    package var format = Format.html
    package var objective = 0.99999
    /// For CI: less than this, of reads or of writes, and the exit code is 1.
    package var minimumAvailability: Double?

    package init(directories: [String]) { self.directories = directories }
}

/// `polder report`.
package enum ReportCommand {
    /// Writes report.html, report.json and report.csv; `print` gets what belongs on standard
    /// output. Returns the exit code.
    package static func run(_ options: ReportOptions, print: (String) -> Void) throws -> Int32 {
        guard let first = options.directories.first else {
            throw ProbeError.badOption("which directory? `polder report DIR`")
        }
        guard options.objective > 0, options.objective < 1 else {
            throw ProbeError.badOption("the objective is a ratio below 1, such as 0.99999")
        }
        let builder = try ReportBuilder.build(directories: options.directories)
        let document = ReportDocument(builder, objective: options.objective)
        let folder = URL(fileURLWithPath: options.out ?? first)
        let json = try document.json()
        let csv = document.csv()
        do {
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try Data(ReportPage.html(builder, document).utf8)
                .write(to: folder.appendingPathComponent("report.html"), options: .atomic)
            try json.write(to: folder.appendingPathComponent("report.json"), options: .atomic)
            try Data(csv.utf8).write(
                to: folder.appendingPathComponent("report.csv"), options: .atomic)
        } catch {
            throw ProbeError.cannotWrite(path: folder.path, reason: error.localizedDescription)
        }
        switch options.format {
        case .json: print(String(decoding: json, as: UTF8.self))
        case .csv: print(csv)
        case .html:
            let a = document.availability
            print("reads   \(a.read.text) (\(a.read.failures) of \(a.read.probes) failed)")
            print("writes  \(a.write.text) (\(a.write.failures) of \(a.write.probes) failed)")
            print("outages \(document.outages.count)")
            print(folder.appendingPathComponent("report.html").path)
        }
        guard let minimum = options.minimumAvailability else { return 0 }
        let isEnough = ProbeKind.allCases.allSatisfy { kind in
            let tally = builder.total[kind].tally
            return tally.probes == 0 || tally.ratio >= minimum
        }
        return isEnough ? 0 : 1
    }
}
