/* Configuration objects: sources, precedence, visits, callbacks that are dropped once. */
#include "check.h"

typedef struct {
    const char *key;
    char value[256];
    int visited, stop_after;
} Search;

static int32_t search(void *user, const char *key, const char *value)
{
    Search *search = (Search *)user;
    search->visited++;
    if (search->key != NULL && strcmp(key, search->key) == 0) {
        snprintf(search->value, sizeof search->value, "%s", value);
    }
    return search->visited == search->stop_after ? 7 : 0;
}

static void expect(const fmi_config *config, const char *key, const char *value)
{
    Search found = { NULL, "", 0, -1 };
    found.key = key;
    OK(fmi_config_each(config, search, &found));
    if (strcmp(found.value, value) != 0) {
        fprintf(stderr, "%s is \"%s\" instead of \"%s\"\n", key, found.value, value);
        exit(1);
    }
}

static fmi_config *parsed(const char *json)
{
    fmi_config *config = NULL;
    OK(fmi_config_create(&config));
    OK(fmi_config_parse(config, json, strlen(json)));
    return config;
}

static void sources(void)
{
    static const char JSON[] = "{\"backends\":{\"Direct\":{\"enabled\":\"true\",\"host\":\"file\",\"port\":\"1234\"}}}";
    fmi_config *config;

    /* set wins over parse, whatever the order. */
    OK(fmi_config_create(&config));
    OK(fmi_config_set(config, "backends.Direct.host", "set"));
    OK(fmi_config_parse(config, JSON, sizeof JSON - 1));
    expect(config, "backends.Direct.host", "set");
    expect(config, "backends.Direct.port", "1234");
    fmi_config_destroy(config);

    /* The text need not be NUL-terminated: here the closing braces of another text follow. */
    OK(fmi_config_create(&config));
    OK(fmi_config_parse(config, "{}}}}", 2));
    fmi_config_destroy(config);
}

static void file(void)
{
    char path[] = "/tmp/fmi-test-XXXXXX";
    static const char JSON[] = "{\"backends\":{\"Direct\":{\"enabled\":true,\"host\":\"of-a-file\",\"port\":9}}}";
    fmi_config *config;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, JSON, sizeof JSON - 1) == (ssize_t)(sizeof JSON - 1));
    close(fd);
    OK(fmi_config_create(&config));
    OK(fmi_config_load(config, path));
    expect(config, "backends.Direct.host", "of-a-file");
    unlink(path);
    REFUSED(FMI_ERR_CONFIG, path, fmi_config_load(config, path));
    expect(config, "backends.Direct.host", "of-a-file");
    fmi_config_destroy(config);
}

#define WRONG_PORT "{\"backends\":{\"Direct\":{\"port\":\"x\"}}}"

static void refusals(void)
{
    fmi_config *config = parsed("{\"backends\":{\"Direct\":{\"enabled\":true,\"host\":\"h\",\"port\":1}}}");
    REFUSED(FMI_ERR_CONFIG, "/nowhere/fmi.json", fmi_config_load(config, "/nowhere/fmi.json"));
    STATUS(FMI_ERR_CONFIG, fmi_config_parse(config, "", 0));
    STATUS(FMI_ERR_CONFIG, fmi_config_parse(config, NULL, 0));
    STATUS(FMI_ERR_CONFIG, fmi_config_parse(config, "{\"backends\":", 12));
    REFUSED(FMI_ERR_CONFIG, "port", fmi_config_parse(config, WRONG_PORT, sizeof WRONG_PORT - 1));
    REFUSED(FMI_ERR_CONFIG, "port", fmi_config_set(config, "backends.Direct.port", "70000"));
    REFUSED(FMI_ERR_ARG, "parameter json is not UTF-8", fmi_config_parse(config, "\xff", 1));
    REFUSED(FMI_ERR_ARG, "parameter path is not UTF-8", fmi_config_load(config, "\xff"));
    REFUSED(FMI_ERR_ARG, "parameter key is not UTF-8", fmi_config_set(config, "\xff", "1"));
    REFUSED(FMI_ERR_ARG, "parameter value is not UTF-8", fmi_config_set(config, "backends.Direct.host", "\xff"));
    /* What was refused changed nothing. */
    expect(config, "backends.Direct.host", "h");
    expect(config, "backends.Direct.port", "1");
    fmi_config_destroy(config);
}

static void visits_end_early(void)
{
    fmi_config *config = parsed("{\"backends\":{\"Direct\":{\"enabled\":true,\"host\":\"h\",\"port\":1}}}");
    Search found = { NULL, "", 0, 2 };
    STATUS(FMI_ERR_CALLBACK, fmi_config_each(config, search, &found));
    CHECK(found.visited == 2);
    fmi_config_destroy(config);
}

static int32_t changes(void *user, const char *key, const char *value)
{
    (void)key, (void)value;
    OK(fmi_config_set((fmi_config *)user, "backends.Direct.host", "changed"));
    return 0;
}

/* The visitor may change what it visits. */
static void visits_see_a_snapshot(void)
{
    fmi_config *config = parsed("{\"backends\":{\"Direct\":{\"enabled\":true,\"host\":\"h\",\"port\":1}}}");
    OK(fmi_config_each(config, changes, config));
    expect(config, "backends.Direct.host", "changed");
    fmi_config_destroy(config);
}

static int32_t gather(void *user, const char *key, const char *value)
{
    char *all = (char *)user;
    strcat(strcat(strcat(strcat(all, key), "="), value), ";");
    return strstr(all, "stop") != NULL;
}

/* What is spelt out, as it stands there. */
static void given(void)
{
    static const char json[] = "{\"backends\":{\"Direct\":{\"port\":12},\"mine\":{\"depth\":\"3\"}}}";
    fmi_config *config;
    char all[200] = "";
    OK(fmi_config_create(&config));
    OK(fmi_config_each_given(config, gather, all));
    CHECK(strcmp(all, "") == 0);
    OK(fmi_config_parse(config, json, strlen(json)));
    OK(fmi_config_set(config, "backends.Direct.port", "13"));
    OK(fmi_config_each_given(config, gather, all));
    CHECK(strcmp(all, "backends.Direct.port=13;backends.mine.depth=3;") == 0);
    OK(fmi_config_set(config, "a", "stop"));
    STATUS(FMI_ERR_CALLBACK, fmi_config_each_given(config, gather, all));
    fmi_config_destroy(config);
}

static int32_t check(void *user)
{
    (void)user;
    return 0;
}

static void log_line(void *user, int32_t level, const char *text)
{
    (void)user;
    CHECK(level >= FMI_LOG_ERROR && level <= FMI_LOG_DEBUG && text != NULL);
}

static void drop(void *user)
{
    (*(int *)user)++;
}

static void callbacks_are_dropped_once(void)
{
    fmi_config *config = parsed(MEMORY_CONFIG);
    fmi_comm *comm;
    int first = 0, second = 0, log = 0, refused = 0;
    OK(fmi_config_set_interrupt(config, check, &first, drop));
    CHECK(first == 0);
    OK(fmi_config_set_interrupt(config, check, &second, drop));
    CHECK(first == 1 && second == 0);
    OK(fmi_config_set_log(config, FMI_LOG_DEBUG, log_line, &log, drop));

    STATUS(FMI_ERR_NULL, fmi_config_set_interrupt(config, NULL, &refused, drop));
    CHECK(refused == 1);
    STATUS(FMI_ERR_NULL, fmi_config_set_interrupt(NULL, check, &refused, drop));
    CHECK(refused == 2);
    STATUS(FMI_ERR_NULL, fmi_config_set_log(config, FMI_LOG_INFO, NULL, &refused, drop));
    CHECK(refused == 3);
    REFUSED(FMI_ERR_ARG, "level", fmi_config_set_log(config, 5, log_line, &refused, drop));
    REFUSED(FMI_ERR_ARG, "level", fmi_config_set_log(config, -1, log_line, &refused, drop));
    CHECK(refused == 5);

    /* A communicator keeps what it uses. */
    OK(fmi_comm_create_with(0, 1, "n", config, &comm));
    fmi_config_destroy(config);
    OK(fmi_barrier(comm));
    fmi_comm_destroy(comm);
    CHECK(first == 1 && second == 1 && log == 1);
}

static void from_the_environment(void)
{
    fmi_comm *comm = (fmi_comm *)&comm;
    uint32_t number = 77;
    unsetenv("FMI_RANK");
    unsetenv("FMI_SIZE");
    STATUS(FMI_ERR_CONFIG, fmi_comm_create_from_env("n", &comm));
    CHECK(comm == NULL);
    setenv("FMI_RANK", "2", 1);
    setenv("FMI_SIZE", "3", 1);
    setenv("FMI_RENDEZVOUS", "127.0.0.1:1", 1);
    OK(fmi_comm_create_from_env("n", &comm));
    OK(fmi_comm_rank(comm, &number));
    CHECK(number == 2);
    OK(fmi_comm_size(comm, &number));
    CHECK(number == 3);
    fmi_comm_destroy(comm);
    setenv("FMI_RANK", "3", 1);
    CHECK(fmi_comm_create_from_env("n", &comm) < 0);
    CHECK(comm == NULL);
}

int main(void)
{
    watchdog(60);
    sources();
    file();
    refusals();
    visits_end_early();
    visits_see_a_snapshot();
    callbacks_are_dropped_once();
    from_the_environment();
    given();
    return 0;
}
