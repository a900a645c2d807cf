/*
 * Texts as the C API wants them: UTF-8 without NUL, and JSON.
 */
#ifndef FMI_UTILS_TEXT_H
#define FMI_UTILS_TEXT_H

#include <cstddef>
#include <map>
#include <string>

#include "CApi.h"

namespace FMI::detail {

/** The length of the UTF-8 character at `at`; 0 where there is none, or a NUL. */
inline std::size_t utf8_length(const std::string &text, std::size_t at)
{
    const auto byte = [&](std::size_t i) {
        return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
    };
    const unsigned first = byte(0);
    if (first >= 0x01 && first < 0x80) {
        return 1;
    }
    const std::size_t length = first >= 0xC2 && first < 0xE0 ? 2
                               : first >= 0xE0 && first < 0xF0 ? 3
                               : first >= 0xF0 && first < 0xF5 ? 4
                                                               : 0;
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0) != 0x80) {
            return 0;
        }
    }
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    const unsigned second = byte(1);
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
        (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F)) {
        return 0;
    }
    return length;
}

/**
 * A name for the C API, which differs where names differ. One that is UTF-8
 * without NUL stays as it is. Any other, and those that look like what becomes
 * of such, get U+FFFD in front, and '%' and two hexadecimal digits in place of
 * each '%' and each byte that does not fit.
 */
inline std::string c_name(const std::string &name)
{
    const std::string mark = "\xEF\xBF\xBD";
    std::size_t at = 0;
    while (const std::size_t length = utf8_length(name, at)) {
        at += length;
    }
    if (at >= name.size() && name.compare(0, mark.size(), mark) != 0) {
        return name;
    }
    const char *const digits = "0123456789ABCDEF";
    std::string escaped = mark;
    for (at = 0; at < name.size();) {
        const std::size_t length = utf8_length(name, at);
        if (length == 0 || name[at] == '%') {
            const auto byte = static_cast<unsigned char>(name[at++]);
            escaped += {'%', digits[byte >> 4], digits[byte & 0xF]};
        } else {
            escaped.append(name, at, length);
            at += length;
        }
    }
    return escaped;
}

/** The job that a channel joins which is not the first in `job`. No name that c_name() gives is like it. */
inline std::string job_of_channel(const std::string &job, const std::string &channel)
{
    return "\xEF\xBF\xBD%/" + std::to_string(channel.size()) + '/' + channel + '/' + job;
}

/** `text` as a JSON string. */
inline std::string json_string(const std::string &text)
{
    const char *const digits = "0123456789abcdef";
    std::string json = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) {
            json.append("\\u00").append({digits[byte >> 4], digits[byte & 0xF]});
        } else {
            if (c == '"' || c == '\\') {
                json += '\\';
            }
            json += c;
        }
    }
    return json + '"';
}

/** Parameters as a JSON object of strings. */
inline std::string json_object(const std::map<std::string, std::string> &members)
{
    std::string json;
    for (const auto &[key, value] : members) {
        json += (json.empty() ? "{" : ",") + json_string(key) + ':' + json_string(value);
    }
    return json.empty() ? "{}" : json + '}';
}

} // namespace FMI::detail

#endif /* FMI_UTILS_TEXT_H */
