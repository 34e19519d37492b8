// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What profile is measured beside: nothing, at the same clock. The least that anything costs which looks at processors like that.
 */
#include "classic.h"

SEC("perf_event")
int clock_strikes(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
