/* fmi.h may be included twice, after other headers, and by several sources. */
#include <string.h>
#include <fmi.h>
#include <fmi.h>
#include "fmi.h"

int main(void)
{
    return strcmp(fmi_status_name(FMI_OK), "FMI_OK") != 0;
}
