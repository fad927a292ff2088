# The records of each file named on standard input (one a line), by Text::CSV_XS with binary data allowed: output as of
# read-csv.py.
use strict;
use warnings;
use Text::CSV_XS;

while (my $path = <STDIN>) {
    chomp $path;
    my $parser = Text::CSV_XS->new({ binary => 1 });
    open my $source, '<:raw', $path or die "$path: $!";
    read $source, my $mark, 3;
    seek $source, 0, 0 unless defined $mark && $mark eq "\xef\xbb\xbf";
    while (my $record = $parser->getline($source)) {
        utf8::is_utf8($_) and utf8::encode($_) for @$record;
        print join(',', map { 'x' . unpack('H*', $_) } @$record), "\n";
    }
    # 2012 is the end of the file where a record may begin.
    print 0 + $parser->error_diag == 2012 ? ".\n" : "!\n";
}
