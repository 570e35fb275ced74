"""Compress pixels as scanners and archives do, with the encoders that the extra ``codecs`` installs."""

import base64
import zlib
from pathlib import Path

import numpy as np
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

# A cut through the made head at z = 0, unsigned with an intercept of -1024, 32 x 32, as OpenJPH encodes it without loss: no
# encoder that the extra installs writes HTJ2K.
HTJ2K_HEAD = zlib.decompress(
    base64.b85decode(
        b"c-mD?3rv$|6#f3cEfl0$3WFa6Qz(zZv=pV~CGJNiR32L1j7R1DkjhK=Gl<Cw0xb%xN|8s!fDFbqLBLjGn6Bdy3L&$iJX#hrU?RqL(-=E+%&sI`"
        b"vYq7Idrt1nJ=bvB5Dh#~U<CCa{)_*6XdeU_xPS;?qcJzc01Kmn00ECjAww##qKd@-fk-4WWCL3Ooi52K3g>dD2{~m{CgU)hafD$I1M}UBxE%l)"
        b"S`@&|bcbMC4itc*09GiV2%2GGIgst_Ry`!#oqWUvgh&9z{MF-o%>M%v<^#Ag_c=RoQv!A#*Il%QP?>SdMhl=KV|zsmSpNFPg&6B6_bK0QA!beX"
        b"-@Qv6{$NVyFfH4R&m&ibSJ7`Gtnjsp0EY>e`Y*Tj5S1=QP5l5WyOG-Gl1N!g>t1TXceLlzT+QP)LASROh1-o0wnHeey}e5ia&&H~KD#+`Q^`Lk"
        b">J8Z!-`*MaiCBpPep{$>?3;n0gx77J?W$f!v62iFaDzbA3#HT@Fk#Ar`Ql>s=OhxZCHO(qIkMhQ0dVnW?OC6$(Hvk^DU%Bk{O!GfYE~Ollh8iT"
        b"@B(z9QsmLoYR0RqzGCX>hf*w(?J^py!lzEYd|SmdM`i~ql5KqYAv%4f@3{){)AT(D#7oMBZO8%^pJ1G{=8KVENEU)z5t$kfkt7?BSJ#s+UGG!g"
        b"JJeiuOb5K9fI^zBT@w%vD_-Nklv$=UAI^M=7aZ_m;I{>|Q(y%@W&i5M;`|y#qrAo*WeFoLRIwbl;et5NxXZr1#L%fM*wG?AKNeB|uc35cyFvzg"
        b"UX*A@mz8@*wbT@vw5yAIoas*GBT-ph6-X3~%0JE&c5yY{w5&MsmRiO2k!-1%p#=G4BPYB+eyAsj5O=GL<l<^2Q<js~YZh7P#~qx2-gr+@pMuv{"
        b"W0V*|lic(*l~zo<Rh@6NoWq7g(%rkYNLrR-^pa)WBNjZzz+)>j!_+hW`e1TxiE4sU8-3@QYe%E=QI9_)n^obP0sYovvsDgWM?%``!)Ss=I0Hdf"
        b"<8WFr;mX}f#);_2K&|t_!C|#Lgh-Cc+u*@TlX%8(z1hzZp!26tA~dmACu?#1BCpkVzf?e21$V!{vsS#M*RqhoTScYFU?DU4GvB?vtZ^*&nO6#r"
        b"&1Y9WoI9h(G$S}JQJr5^-1PP---kfQ>sB&^2Sra9>K>#ivrX+}44rWyTB+U-Tz?c?8}x?mc1nyEbdWjtN`+Sru~9JGkoPiy>^?vL4(p7KU7(Ta"
        b">$tC|_P;rS)fAj8B@okT<b^XlDW+M(BGgJ7DLmqVvd1JO-Pz>_m|)IreAXlh(-qFx?C0@ErkkfPH>Hj1M{$zYLxBo;VWJevIlo7pnKhfh9vg@X"
        b")C>l(<+tx+g)_N2*`G6w6LK~qZ0$$0Pzt+%Q<Bb{D&S=N-f}O5aP8M0>>R3*h>c0X`%<jb?IOF`glcBvRQ)g!XHfqQZuG<("
    )
)

LOSSLESS = {
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
    "jpeg-lossless": JPEGLosslessSV1,
}


def encode(stored: np.ndarray, syntax: str, bits: int = 16) -> bytes:
    """One frame as a compressed stream.

    Args:
        stored: uint16 or int16 ``(rows, columns)``.
        syntax: One of :data:`LOSSLESS` but JPEG Lossless, or HTJ2K for the made head.
        bits: Bits Stored.
    """
    if syntax == RLELossless:
        from rle.utils import encode_pixel_data

        rows, columns = stored.shape
        return bytes(
            encode_pixel_data(stored.tobytes(), None, "<", rows=rows, columns=columns, samples_per_pixel=1, bits_allocated=16)
        )
    if syntax == JPEGLSLossless:
        import jpeg_ls

        return bytes(jpeg_ls.encode_array(stored.view(np.uint16) & np.uint16((1 << bits) - 1)))
    if syntax == JPEG2000Lossless:
        import openjpeg.utils

        return bytes(openjpeg.utils.encode_array(stored, bits_stored=bits))
    assert syntax == HTJ2KLossless
    return HTJ2K_HEAD


def jpeg_lossless(path: Path) -> Path:
    """Compress an uncompressed file in place: JPEG Lossless, process 14, selection value 1."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path
