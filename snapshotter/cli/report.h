// What the commands print: reports as text for people and as JSON for machines. Pure. The JSON keys are documented in README.md and
// only ever added to.
#ifndef HEADRACE_SNAPSHOTTER_CLI_REPORT_H_
#define HEADRACE_SNAPSHOTTER_CLI_REPORT_H_

#include <string>
#include <vector>

#include "snapshotter/cli/build.h"
#include "snapshotter/cli/convert.h"
#include "snapshotter/cli/inspect.h"
#include "snapshotter/cli/verify.h"

namespace headrace::cli {

std::string BuildReportText(const BuildReport& report);
std::string BuildReportJson(const BuildReport& report);
std::string ConvertReportText(const ConvertReport& report);
std::string ConvertReportJson(const ConvertReport& report);
std::string InspectReportText(const InspectReport& report, bool files);
std::string InspectReportJson(const InspectReport& report, bool files);
std::string VerifyReportText(const VerifyReport& report);
std::string VerifyReportJson(const VerifyReport& report);

// Columns padded to their widest cell, two spaces between; `right` has 'r' for columns that are aligned right.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows, std::string_view alignment);
// "1.47x", or "-" for nothing.
std::string FormatRatio(uint64_t uncompressed, uint64_t compressed);
// The first 12 hexadecimal digits with "sha256:" before them, for tables.
std::string ShortDigest(const Digest& digest);
// Control characters as \xNN: names from images go to terminals.
std::string Printable(std::string_view text);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_REPORT_H_
