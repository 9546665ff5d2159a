// See gloo/context.h: nothing of Gloo's errors is named.
#pragma once
