/*
 * The configuration file.
 */
#ifndef FMI_UTILS_CONFIGURATION_H
#define FMI_UTILS_CONFIGURATION_H

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "CApi.h"
#include "Errors.h"

namespace FMI::Utils {

/**
 * What a configuration says (fmi_config_load(), fmi_config_each()). Values are
 * texts, as they stand in the file without quotes; the environment counts over
 * the file, and keys that are not there have their defaults.
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
        const std::unique_ptr<fmi_config, decltype(&fmi_config_destroy)> config(created, &fmi_config_destroy);
        if (config_path.find('\0') != std::string::npos) {
            throw std::runtime_error("FMI: the path of a configuration has no NUL");
        }
        const std::size_t start = config_path.find_first_not_of(" \t\r\n");
        if (start != std::string::npos && config_path[start] == '{') {
            detail::check(fmi_config_parse(created, config_path.data(), config_path.size()));
        } else if (!config_path.empty()) {
            detail::check(fmi_config_load(created, config_path.c_str()));
        }
        const auto visit = [](void *user, const char *key, const char *value) {
            return detail::callback([&] { static_cast<Configuration *>(user)->add(key, value); });
        };
        detail::call(nullptr, [&] { return fmi_config_each(created, visit, this); });
    }

    /** The channels that are enabled, and their parameters. */
    std::map<std::string, Parameters> get_active_channels() const
    {
        std::map<std::string, Parameters> active;
        for (const auto &[name, parameters] : channels) {
            const auto enabled = parameters.first.find("enabled");
            if (enabled != parameters.first.end() && enabled->second == "true") {
                active.emplace(name, parameters);
            }
        }
        return active;
    }

    /** The price of function time, in USD per GiB-second. */
    double get_faas_price() const { return faas_price; }

private:
    void add(const std::string &key, const std::string &value)
    {
        if (key == "model.FaaS.gib_second_price") {
            faas_price = std::stod(value);
            return;
        }
        /* backends.<channel>.<name> or model.<channel>.<name>; the names of channels have no dots. */
        const std::size_t dot = key.find('.');
        const std::size_t next = dot == std::string::npos ? dot : key.find('.', dot + 1);
        if (next == std::string::npos) {
            return;
        }
        const std::string section = key.substr(0, dot);
        Parameters &parameters = channels[key.substr(dot + 1, next - dot - 1)];
        if (section == "backends") {
            parameters.first[key.substr(next + 1)] = value;
        } else if (section == "model") {
            parameters.second[key.substr(next + 1)] = value;
        }
    }

    std::map<std::string, Parameters> channels;
    double faas_price = 0;
};

} // namespace FMI::Utils

#endif /* FMI_UTILS_CONFIGURATION_H */
