"""Leave-one-slide-out: every slide is once the test, so that a handful of pairs gives as many tests as it has pairs."""

from restain.crossval.leave_one_out import crossval as crossval
