// Configuration: what a program reads from its file without a communicator.
#include "support.h"

#include <cmath>

using FMI::Utils::Configuration;
using Channels = std::map<std::string, std::pair<Parameters, Parameters>>;

static_assert(std::is_constructible<Configuration, std::string>::value, "from a path");
static_assert(std::is_constructible<Configuration, const char *>::value, "from a path");
static_assert(std::is_same<std::decay<decltype(std::declval<Configuration &>().get_active_channels())>::type,
                  Channels>::value,
    "get_active_channels");
static_assert(std::is_same<decltype(std::declval<Configuration &>().get_faas_price()), double>::value, "get_faas_price");

// The file that the original ships, all of it strings.
static void strings()
{
    Configuration config(file_with(R"({
        "backends": {
            "S3": {"enabled": "true", "bucket_name": "fmibucket", "s3_region": "eu-central-1", "timeout": "100",
                "max_timeout": "1000"},
            "Redis": {"enabled": "false", "host": "127.0.0.1", "port": "6379", "timeout": "1", "max_timeout": "1000"},
            "Direct": {"enabled": "true", "host": "127.0.0.1", "port": "10000", "max_timeout": "1000"}
        },
        "model": {
            "FaaS": {"gib_second_price": "0.0000166667"},
            "S3": {"bandwidth": "50.0", "overhead": "40.4", "transfer_price": "0.0", "download_price": "0.00000043",
                "upload_price": "0.0000054"},
            "Redis": {"bandwidth_single": "100.0", "bandwidth_multiple": "400.0", "overhead": "5.2",
                "transfer_price": "0.0", "instance_price": "0.0038", "requests_per_hour": "1000",
                "include_infrastructure_costs": "true"},
            "Direct": {"bandwidth": "400.0", "overhead": "0.34", "transfer_price": "0.0", "vm_price": "0.0134",
                "requests_per_hour": "1000", "include_infrastructure_costs": "true"}
        }
    })"));
    const Channels channels = config.get_active_channels();
    CHECK(channels.size() == 2);
    CHECK(channels.at("S3").first
        == (Parameters{{"enabled", "true"}, {"bucket_name", "fmibucket"}, {"s3_region", "eu-central-1"},
            {"timeout", "100"}, {"max_timeout", "1000"}}));
    CHECK(channels.at("S3").second
        == (Parameters{{"bandwidth", "50.0"}, {"overhead", "40.4"}, {"transfer_price", "0.0"},
            {"download_price", "0.00000043"}, {"upload_price", "0.0000054"}}));
    CHECK(channels.at("Direct").first
        == (Parameters{{"enabled", "true"}, {"host", "127.0.0.1"}, {"port", "10000"}, {"max_timeout", "1000"}}));
    CHECK(channels.at("Direct").second.at("vm_price") == "0.0134");
    CHECK(channels.at("Direct").second.at("include_infrastructure_costs") == "true");
    CHECK(std::fabs(config.get_faas_price() - 0.0000166667) < 1e-15);

    // They fit where they are meant to go.
    for (const auto &channel : channels) {
        const auto made = FMI::Comm::Channel::get_channel(channel.first, channel.second.first, channel.second.second);
        CHECK(made->get_latency(1, 1, 100) > 0);
    }
}

// The same as proper types: the text of the file, not a number that was read and printed again.
static void types()
{
    Configuration config(file_with(R"({
        "backends": {
            "Direct": {"enabled": true, "host": "127.0.0.1", "port": 10000, "max_timeout": 1000},
            "Redis": {"host": "localhost", "port": 6379, "timeout": 1}
        },
        "model": {
            "FaaS": {"gib_second_price": 1.66667e-5},
            "Direct": {"bandwidth": 4.00e2, "overhead": 0.340, "include_infrastructure_costs": false}
        }
    })"));
    const Channels channels = config.get_active_channels();
    CHECK(channels.size() == 2);
    CHECK(channels.at("Direct").first.at("enabled") == "true");
    CHECK(channels.at("Direct").first.at("port") == "10000");
    CHECK(channels.at("Direct").second.at("bandwidth") == "4.00e2");
    CHECK(channels.at("Direct").second.at("overhead") == "0.340");
    CHECK(channels.at("Direct").second.at("include_infrastructure_costs") == "false");
    // Absent means enabled.
    CHECK(channels.at("Redis").first.count("enabled") == 0);
    CHECK(channels.at("Redis").first.at("host") == "localhost");
    CHECK(std::fabs(config.get_faas_price() - 1.66667e-5) < 1e-15);
}

// Only true and "true" enable.
static void enabled()
{
    for (const char *text : {"true", "\"true\""}) {
        Configuration config(file_with(std::string(R"({"backends": {"Direct": {"enabled": )") + text + "}}}"));
        CHECK(config.get_active_channels().count("Direct") == 1);
    }
    for (const char *text : {"false", "\"false\"", "\"True\"", "\"yes\"", "1", "\"1\"", "\"\"", "0", "\"on\""}) {
        Configuration config(file_with(std::string(R"({"backends": {"Direct": {"enabled": )") + text + "}}}"));
        if (config.get_active_channels().count("Direct") != 0) {
            std::fprintf(stderr, "enabled by %s\n", text);
        }
        CHECK(config.get_active_channels().count("Direct") == 0);
        // Nor does a communicator use it.
        FMI::Communicator comm(0, 1,
            file_with(std::string(R"({"backends": {"Direct": {"enabled": )") + text + "}}}"), "disabled");
        THROWS(std::runtime_error, comm.barrier());
    }
    Configuration none(file_with(R"({"backends": {}, "model": {}})"));
    CHECK(none.get_active_channels().empty());
}

static void failures()
{
    THROWS(std::runtime_error, Configuration("/nonexistent/fmi.json"));
    THROWS(std::runtime_error, Configuration("/"));
    for (const char *text : {"", "{", "[]", "1", "\"text\"", "{\"backends\": []}", "{\"backends\": {\"Direct\": 1}}",
             "{} {}", "{\"backends\": {\"Direct\": {\"enabled\": true,}}}", "\xff\xfe"}) {
        try {
            Configuration config(file_with(text));
            config.get_active_channels();
            config.get_faas_price();
        } catch (const std::runtime_error &) {
            continue;
        }
        std::fprintf(stderr, "no error for %s\n", text);
        CHECK(false);
    }
    // The message names the file.
    try {
        Configuration config("/nonexistent/fmi.json");
    } catch (const std::runtime_error &e) {
        CHECK(std::string(e.what()).find("/nonexistent/fmi.json") != std::string::npos);
    }
}

// What the environment says does not change what the file says.
static void a_file_is_a_file()
{
    setenv("FMI_RENDEZVOUS", "192.0.2.1:4711", 1);
    Configuration config(file_with(R"({"backends": {"Direct": {"host": "127.0.0.1", "port": "10000"}}})"));
    unsetenv("FMI_RENDEZVOUS");
    CHECK(config.get_active_channels().at("Direct").first.at("host") == "127.0.0.1");
    Configuration copy = config;
    CHECK(copy.get_active_channels() == config.get_active_channels());
}

// A file that can be read once only, as of a shell's <(...).
static void a_pipe()
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    const std::string text = R"({"backends": {"Memory": {"enabled": true}, "Direct": {"enabled": false}}})";
    CHECK(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    close(ends[1]);
    FMI::Communicator comm(0, 1, "/proc/self/fd/" + std::to_string(ends[0]), "pipe");
    check_sum(comm, 0, 1);
    close(ends[0]);
}

int main()
{
    watchdog(60);
    strings();
    types();
    enabled();
    failures();
    a_file_is_a_file();
    a_pipe();
    return 0;
}
