/*
 * The configuration file.
 */
#ifndef FMI_UTILS_CONFIGURATION_H
#define FMI_UTILS_CONFIGURATION_H

#include <cstddef>
#include <locale>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "CApi.h"
#include "Errors.h"

namespace FMI {

class Communicator;

namespace Utils {

/**
 * What a configuration says (fmi_config_load(), fmi_config_each(),
 * fmi_config_each_given()). Values are texts, as they stand in the file without
 * quotes. Which channels are enabled and what time costs the environment may
 * say, too; the parameters of channels are those of the file alone. The file is
 * read once: it may be a pipe.
 */
class Configuration {
public:
    /** The parameters of a channel: those of its section in `backends`, and those of its section in `model`. */
    using Parameters = std::pair<std::map<std::string, std::string>, std::map<std::string, std::string>>;

    /**
     * @param config_path  path of a file; or text that starts with '{': the configuration itself; or "":
     *                     the environment and the defaults.
     * @throws std::runtime_error  that names file, key and what was expected.
     */
    explicit Configuration(const std::string &config_path)
    {
        fmi_config *created = nullptr;
        detail::check(fmi_config_create(&created));
        config.reset(created, &fmi_config_destroy);
        if (config_path.find('\0') != std::string::npos) {
            throw std::runtime_error("FMI: the path of a configuration has no NUL");
        }
        const std::size_t start = config_path.find_first_not_of(" \t\r\n");
        if (start != std::string::npos && config_path[start] == '{') {
            detail::check(fmi_config_parse(created, config_path.data(), config_path.size()));
        } else if (!config_path.empty()) {
            detail::check(fmi_config_load(created, config_path.c_str()));
        }
        const auto effective = [](void *user, const char *key, const char *value) {
            return detail::callback([&] { static_cast<Configuration *>(user)->note(key, value); });
        };
        const auto given = [](void *user, const char *key, const char *value) {
            return detail::callback([&] { static_cast<Configuration *>(user)->add(key, value); });
        };
        detail::call(nullptr, [&] { return fmi_config_each(created, effective, this); });
        detail::call(nullptr, [&] { return fmi_config_each_given(created, given, this); });
    }

    /** The channels that are enabled, and their parameters. */
    std::map<std::string, Parameters> get_active_channels() const
    {
        std::map<std::string, Parameters> active;
        for (const auto &[name, channel] : channels) {
            if (channel.is_enabled) {
                active.emplace(name, channel.parameters);
            }
        }
        return active;
    }

    /** The price of function time, in USD per GiB-second. */
    double get_faas_price() const { return faas_price; }

private:
    friend class FMI::Communicator;

    struct Channel {
        bool is_enabled = false;
        Parameters parameters;
    };

    /* What counts in the end. */
    void note(const std::string &key, const std::string &value)
    {
        if (key == "model.FaaS.gib_second_price") {
            /* Numbers have a point whatever the program's locale. */
            std::istringstream number(value);
            number.imbue(std::locale::classic());
            number >> faas_price;
        }
        const auto [section, channel, name] = split(key);
        if (section == "backends" && name == "enabled") {
            channels[channel].is_enabled = value == "true";
        }
    }

    /* What the file says. */
    void add(const std::string &key, const std::string &value)
    {
        const auto [section, channel, name] = split(key);
        if (section == "backends") {
            channels[channel].parameters.first[name] = value;
        } else if (section == "model") {
            channels[channel].parameters.second[name] = value;
        }
    }

    /* <section>.<channel>.<name>, or three times nothing; the names of channels have no dots. */
    static std::tuple<std::string, std::string, std::string> split(const std::string &key)
    {
        const std::size_t dot = key.find('.');
        const std::size_t next = dot == std::string::npos ? dot : key.find('.', dot + 1);
        if (next == std::string::npos) {
            return {};
        }
        return {key.substr(0, dot), key.substr(dot + 1, next - dot - 1), key.substr(next + 1)};
    }

    std::shared_ptr<fmi_config> config;
    std::map<std::string, Channel> channels;
    double faas_price = 0;
};

} // namespace Utils
} // namespace FMI

#endif /* FMI_UTILS_CONFIGURATION_H */
