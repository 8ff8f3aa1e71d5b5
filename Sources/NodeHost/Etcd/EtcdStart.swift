import EtcdFacade
import Logging

/// The start with etcd's flags: `polder etcd`, or the program called by the name `etcd`.
package enum EtcdStart {
    /// Returns when the node has stopped, or could not start.
    package static func run(
        _ words: [String], environment: [String: String]
    ) -> HostProcess.Outcome {
        do throws(ConfigurationError) {
            let arguments = try EtcdArguments(words, environment: environment, readFile: read)
            switch arguments.request {
            case .version:
                HostOutput.say("etcd Version: \(ServedVersions().etcd)")
                HostOutput.say("Polder Version: \(PolderVersion.text)")
                return HostProcess.Outcome(code: 0, message: "")
            case .help:
                HostOutput.say(help)
                return HostProcess.Outcome(code: 0, message: "")
            case .start: break
            }
            let directory = Files.absolute(EtcdPlan.dataDirectory(arguments))
            if Files.exists(directory + "/member") {
                return HostProcess.Outcome(
                    code: 3,
                    message: "\(directory) holds data of etcd itself, which Polder cannot read")
            }
            let file = directory + "/" + EtcdMembers.fileName
            var restored: EtcdMembers?
            if Files.exists(file) { restored = try EtcdMembers(yaml: try read(file), file: file) }
            let plan = try EtcdPlan(arguments, restored: restored)
            return serve(
                plan, keep: restored == nil || plan.configuration.isForcedAlone ? file : nil)
        } catch {
            return HostProcess.Outcome(code: 2, message: "\(error)")
        }
    }

    /// `keep`: where the members are written once the node has come up. Not before: a first start that
    /// fails leaves nothing behind that would outlive the correction of a flag.
    private static func serve(_ plan: EtcdPlan, keep: String?) -> HostProcess.Outcome {
        let logger = plan.configuration.makeLogger()
        for warning in plan.warnings {
            logger.warning(
                "\(warning.message)",
                metadata: warning.metadata.mapValues { Logger.MetadataValue.string($0) })
        }
        for files in plan.selfSigned {
            do throws(HostFailure) {
                guard try files.make() else { continue }
                logger.notice("self-signed certificate made", metadata: ["file": "\(files.certificate)"])
            } catch {
                logger.critical("cannot start", metadata: ["reason": "\(error.message)"])
                return HostProcess.Outcome(code: error.code, message: error.message)
            }
        }
        return HostProcess.run(plan.configuration) { configuration in
            guard let keep else { return }
            do throws(SystemError) {
                try Files.writeAtomically(plan.members.taking(configuration).yaml, to: keep)
            } catch {
                throw HostFailure(code: 6, "\(error)")
            }
        }
    }

    private static func read(_ file: String) throws(ConfigurationError) -> String {
        do throws(SystemError) {
            return try Files.read(file)
        } catch {
            throw ConfigurationError(file: "etcd", line: nil, path: "", message: "\(error)")
        }
    }

    private static var help: String {
        var lines = [
            "Usage: etcd [flags]", "",
            "One node that takes etcd's flags, ETCD_* environment variables and --config-file.",
            "Flags that mean something here, with their defaults:", "",
        ]
        for flag in EtcdFlag.all {
            switch flag.use {
            case .honoured: lines.append("  --\(flag.name) '\(flag.standard)'")
            case .ignored, .refused: break
            }
        }
        lines += ["", "etcd's other flags are known: each is ignored with a warning, or refused."]
        return lines.joined(separator: "\n")
    }
}
