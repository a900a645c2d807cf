/* The second source of a program whose first includes fmi.h too. */
#include <fmi.h>

const char *second(void);

const char *second(void)
{
    return fmi_version_string();
}
