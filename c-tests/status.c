/* Names of status codes; texts that are cut. */
#include "check.h"

#include <limits.h>

static const struct {
    fmi_status status;
    int number;
    const char *name;
} TABLE[] = {
#define ROW(name, number) { name, number, #name }
    ROW(FMI_OK, 0), ROW(FMI_ERR_ARG, -1), ROW(FMI_ERR_NULL, -2), ROW(FMI_ERR_CONFIG, -3),
    ROW(FMI_ERR_UNSUPPORTED, -4), ROW(FMI_ERR_NOMEM, -5), ROW(FMI_ERR_BUSY, -6),
    ROW(FMI_ERR_REENTRANT, -7), ROW(FMI_ERR_FORKED, -8), ROW(FMI_ERR_CLOSED, -9),
    ROW(FMI_ERR_TIMEOUT, -10), ROW(FMI_ERR_INTERRUPTED, -11), ROW(FMI_ERR_CANCELLED, -12),
    ROW(FMI_ERR_SIZE_MISMATCH, -13), ROW(FMI_ERR_MISMATCH, -14), ROW(FMI_ERR_PEER_LOST, -15),
    ROW(FMI_ERR_PEER_LEFT, -16), ROW(FMI_ERR_ABORTED, -17), ROW(FMI_ERR_POISONED, -18),
    ROW(FMI_ERR_CONNECT, -19), ROW(FMI_ERR_RANK_TAKEN, -20), ROW(FMI_ERR_AUTH, -21),
    ROW(FMI_ERR_PROTOCOL, -22), ROW(FMI_ERR_IO, -23), ROW(FMI_ERR_CALLBACK, -24),
    ROW(FMI_ERR_INTERNAL, -25),
#undef ROW
};

static void names(void)
{
    static const fmi_status UNKNOWN[] = { 1, -26, INT_MAX, INT_MIN };
    size_t i;
    for (i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        CHECK(TABLE[i].status == TABLE[i].number);
        CHECK(strcmp(fmi_status_name(TABLE[i].status), TABLE[i].name) == 0);
    }
    for (i = 0; i < sizeof UNKNOWN / sizeof *UNKNOWN; i++) {
        CHECK(strcmp(fmi_status_name(UNKNOWN[i]), "FMI_UNKNOWN_STATUS") == 0);
    }
}

/* As snprintf: the length needed comes back, whatever the room. */
static void cut_texts(void)
{
    char whole[512], part[512];
    size_t length, room;

    CHECK(fmi_last_error_message(NULL, 0) == 0);
    memset(whole, 'x', sizeof whole);
    CHECK(fmi_last_error_message(whole, sizeof whole) == 0 && whole[0] == 0 && whole[1] == 'x');

    STATUS(FMI_ERR_NULL, fmi_comm_rank(NULL, NULL));
    length = fmi_last_error_message(whole, sizeof whole);
    CHECK(length > 0 && length < sizeof whole && strlen(whole) == length);
    CHECK(fmi_last_error_message(NULL, 0) == length);
    CHECK(fmi_last_error_message(NULL, 100) == length);
    for (room = 0; room <= length + 2; room++) {
        memset(part, 'x', sizeof part);
        CHECK(fmi_last_error_message(part, room) == length);
        if (room > 0) {
            size_t copied = room - 1 < length ? room - 1 : length;
            CHECK(memcmp(part, whole, copied) == 0 && part[copied] == 0);
            CHECK(part[copied + 1] == 'x');
        } else {
            CHECK(part[0] == 'x');
        }
    }
}

/* A text that is cut ends between two characters. */
static void cut_characters(void)
{
    fmi_config *config;
    char whole[512], part[512];
    const char *umlaut;
    size_t at;
    OK(fmi_config_create(&config));
    STATUS(FMI_ERR_CONFIG, fmi_config_load(config, "/nowhere/\xc3\xa4"));
    fmi_last_error_message(whole, sizeof whole);
    umlaut = strstr(whole, "\xc3\xa4");
    CHECK(umlaut != NULL);
    at = (size_t)(umlaut - whole);
    fmi_last_error_message(part, at + 2);
    CHECK(strlen(part) == at);
    fmi_last_error_message(part, at + 3);
    CHECK(strlen(part) == at + 2);
    fmi_config_destroy(config);
}

int main(void)
{
    watchdog(60);
    names();
    cut_texts();
    cut_characters();
    return 0;
}
