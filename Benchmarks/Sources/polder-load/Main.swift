import Glibc

@main
enum Main {
    static func main() {
        let arguments = Array(CommandLine.arguments.dropFirst())
        if arguments.isEmpty || arguments.contains("--help") {
            print(Options.usage)
            exit(arguments.isEmpty ? 2 : 0)
        }
        if arguments[0] == "limits" { exit(Limits.main(Array(arguments.dropFirst()))) }
        do throws(OptionError) {
            let report = try Worker(Options(arguments)).run()
            print(report.json)
            exit(report.isGood ? 0 : 1)
        } catch {
            let text = "polder-load: \(error.text)\n"
            _ = write(STDERR_FILENO, text, text.utf8.count)
            exit(2)
        }
    }
}
