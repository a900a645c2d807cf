/* Header, library and Cargo.toml (its version comes as FMI_CARGO_VERSION) agree. */
#include "check.h"

int main(void)
{
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", FMI_VERSION_MAJOR, FMI_VERSION_MINOR, FMI_VERSION_PATCH);
    CHECK(strcmp(text, fmi_version_string()) == 0);
    CHECK(strcmp(text, FMI_CARGO_VERSION) == 0);
    CHECK(fmi_version_number() ==
        FMI_VERSION_MAJOR * 1000000 + FMI_VERSION_MINOR * 1000 + FMI_VERSION_PATCH);
    return 0;
}
